// Package wit_types has the types of the interface language that Go lacks. The generated bindings import it by this name.
package wit_types

// The tags of an option.
const (
	OptionNone uint8 = iota
	OptionSome
)

// An Option is a value or none; the zero value is none.
type Option[T any] struct {
	tag   uint8
	value T
}

// None returns an option without a value.
func None[T any]() Option[T] {
	return Option[T]{}
}

// Some returns an option with a value.
func Some[T any](value T) Option[T] {
	return Option[T]{OptionSome, value}
}

// Tag returns the tag.
func (o Option[T]) Tag() uint8 { return o.tag }

// IsSome reports whether there is a value.
func (o Option[T]) IsSome() bool { return o.tag == OptionSome }

// Some returns the value. It must exist.
func (o Option[T]) Some() T {
	if o.tag != OptionSome {
		panic("the option has no value")
	}
	return o.value
}

// SomeOr returns the value, or the default if there is none.
func (o Option[T]) SomeOr(other T) T {
	if o.tag != OptionSome {
		return other
	}
	return o.value
}

// The tags of a result.
const (
	ResultOk uint8 = iota
	ResultErr
)

// A Result is a value or an error.
type Result[T, E any] struct {
	tag uint8
	ok  T
	err E
}

// Ok returns a result with a value.
func Ok[T, E any](value T) Result[T, E] {
	return Result[T, E]{tag: ResultOk, ok: value}
}

// Err returns a result with an error.
func Err[T, E any](err E) Result[T, E] {
	return Result[T, E]{tag: ResultErr, err: err}
}

// Tag returns the tag.
func (r Result[T, E]) Tag() uint8 { return r.tag }

// IsErr reports whether the result is an error.
func (r Result[T, E]) IsErr() bool { return r.tag == ResultErr }

// Ok returns the value. It must exist.
func (r Result[T, E]) Ok() T {
	if r.tag != ResultOk {
		panic("the result is an error")
	}
	return r.ok
}

// Err returns the error. It must exist.
func (r Result[T, E]) Err() E {
	if r.tag != ResultErr {
		panic("the result is not an error")
	}
	return r.err
}
