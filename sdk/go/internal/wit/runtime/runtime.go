//go:build wasip1

// Package wit_runtime is the memory through which the gateway and the generated bindings hand each other values. The bindings
// name it, and what is in it.
package wit_runtime

import (
	"runtime"
	"unsafe"
)

// Allocate returns memory that the garbage collector leaves alone until pinner lets go of it. An alignment is 1, 2, 4 or 8.
func Allocate(pinner *runtime.Pinner, size, align uintptr) unsafe.Pointer {
	if size == 0 {
		return nil
	}
	memory := unsafe.Pointer(unsafe.SliceData(make([]uint64, (size+7)/8)))
	pinner.Pin(memory)
	return memory
}

// What the gateway writes into. The first chunk needs no allocation, and is enough for most requests.
var (
	first [16 << 10]byte
	chunk = first[:]
	// Chunks that are full, but whose contents may not have been read yet.
	full [][]byte
)

const chunkSize = 64 << 10

// Unpin is called when all that the gateway wrote is held by Go's own pointers, which keep the chunks alive.
func Unpin() {
	full = nil
}

// The gateway calls this in the middle of handing over values, when the component must not be left: nothing in here may read a
// clock, as a garbage collection would. While a goroutine is pinned none begins.
//
//go:wasmexport cabi_realloc
func cabiRealloc(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	memory := take(size, align)
	if oldSize > 0 {
		copy(unsafe.Slice((*byte)(memory), size), unsafe.Slice((*byte)(old), min(oldSize, size)))
	}
	return memory
}

func take(size, align uintptr) unsafe.Pointer {
	start := -uintptr(unsafe.Pointer(unsafe.SliceData(chunk))) & (align - 1)
	if start+size > uintptr(len(chunk)) {
		procPin()
		full = append(full, chunk)
		chunk = make([]byte, max(size+align, chunkSize))
		procUnpin()
		start = -uintptr(unsafe.Pointer(unsafe.SliceData(chunk))) & (align - 1)
	}
	memory := unsafe.Pointer(unsafe.SliceData(chunk[start:]))
	chunk = chunk[start+size:]
	return memory
}

//go:linkname procPin runtime.procPin
func procPin() int

//go:linkname procUnpin runtime.procUnpin
func procUnpin()
