// Package wit_types has the types of the interface language that Go has none for. The generated bindings name it, and what is in it.
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

// None is no value.
func None[T any]() Option[T] {
	return Option[T]{}
}

// Some is a value.
func Some[T any](value T) Option[T] {
	return Option[T]{OptionSome, value}
}

// Tag says which it is.
func (o Option[T]) Tag() uint8 { return o.tag }

// IsSome says whether there is a value.
func (o Option[T]) IsSome() bool { return o.tag == OptionSome }

// Some returns the value, which has to be there.
func (o Option[T]) Some() T {
	if o.tag != OptionSome {
		panic("there is no value")
	}
	return o.value
}

// SomeOr returns the value, or another if there is none.
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

// Ok is a value.
func Ok[T, E any](value T) Result[T, E] {
	return Result[T, E]{tag: ResultOk, ok: value}
}

// Err is an error.
func Err[T, E any](err E) Result[T, E] {
	return Result[T, E]{tag: ResultErr, err: err}
}

// Tag says which it is.
func (r Result[T, E]) Tag() uint8 { return r.tag }

// IsErr says whether it is an error.
func (r Result[T, E]) IsErr() bool { return r.tag == ResultErr }

// Ok returns the value, which has to be there.
func (r Result[T, E]) Ok() T {
	if r.tag != ResultOk {
		panic("it is an error")
	}
	return r.ok
}

// Err returns the error, which has to be there.
func (r Result[T, E]) Err() E {
	if r.tag != ResultErr {
		panic("it is no error")
	}
	return r.err
}
