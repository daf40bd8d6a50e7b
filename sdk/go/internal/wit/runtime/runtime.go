//go:build wasip1

// Package wit_runtime has the memory through which the gateway and the generated bindings pass values. The bindings import it by
// this name.
package wit_runtime

import (
	"runtime"
	"unsafe"
)

// Allocate returns memory that the garbage collector does not free until pinner is unpinned. The alignment is 1, 2, 4 or 8.
func Allocate(pinner *runtime.Pinner, size, align uintptr) unsafe.Pointer {
	if size == 0 {
		return nil
	}
	memory := unsafe.Pointer(unsafe.SliceData(make([]uint64, (size+7)/8)))
	pinner.Pin(memory)
	return memory
}

// The memory that the gateway writes to. The first chunk is static, and is enough for most requests.
var (
	first [16 << 10]byte
	chunk = first[:]
	// Full chunks, whose contents may not have been read yet.
	full [][]byte
)

const chunkSize = 64 << 10

// Unpin is called when Go's own pointers refer to all values that the gateway wrote, and keep the chunks alive.
func Unpin() {
	full = nil
}

// The gateway calls this function while it passes values, when the component must not call the host. So it must not read a clock, as
// a garbage collection does. No collection starts while a goroutine is pinned.
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
