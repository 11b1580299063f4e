package gguf

// Metadata: the value types of the format as Go types, and typed access.

import (
	"fmt"
	"reflect"
)

// ValueType is the type of a metadata value, or of the elements of an array.
type ValueType uint32

// The value types, with the format's numbers.
const (
	Uint8   ValueType = 0
	Int8    ValueType = 1
	Uint16  ValueType = 2
	Int16   ValueType = 3
	Uint32  ValueType = 4
	Int32   ValueType = 5
	Float32 ValueType = 6
	Bool    ValueType = 7
	String  ValueType = 8
	Array   ValueType = 9
	Uint64  ValueType = 10
	Int64   ValueType = 11
	Float64 ValueType = 12
)

// valueTypes gives each value type's name and the least bytes that a value takes.
var valueTypes = [...]struct {
	name string
	size int64
}{
	Uint8: {"uint8", 1}, Int8: {"int8", 1}, Uint16: {"uint16", 2}, Int16: {"int16", 2},
	Uint32: {"uint32", 4}, Int32: {"int32", 4}, Float32: {"float32", 4}, Bool: {"bool", 1},
	String: {"string", 8}, Array: {"array", 12}, Uint64: {"uint64", 8}, Int64: {"int64", 8}, Float64: {"float64", 8},
}

// String returns the type's name in Go, "uint32", or "array".
func (t ValueType) String() string {
	if int64(t) < int64(len(valueTypes)) {
		return valueTypes[t].name
	}
	return fmt.Sprintf("ValueType(%d)", uint32(t))
}

// Scalar lists the Go types of metadata values that are not arrays.
type Scalar interface {
	uint8 | int8 | uint16 | int16 | uint32 | int32 | float32 | bool | string | uint64 | int64 | float64
}

// Metadatum lists the Go types of all metadata values.
type Metadatum interface {
	Scalar | []uint8 | []int8 | []uint16 | []int16 | []uint32 | []int32 | []float32 |
		[]bool | []string | []uint64 | []int64 | []float64
}

// KV is one metadata entry. The dynamic type of Value is the Go type of the
// entry's type: uint32 for Uint32, and for Array a slice such as []string.
type KV struct {
	Key   string
	Type  ValueType
	Value any
}

// Entry returns the entry of the given key and value; its type is that of V.
func Entry[V Metadatum](key string, value V) KV {
	t, _, _ := typeOf(value)
	return KV{Key: key, Type: t, Value: value}
}

// Elem returns the type of the elements of an array entry, and the entry's own
// type otherwise.
func (kv KV) Elem() ValueType {
	_, elem, _ := typeOf(kv.Value)
	return elem
}

// typeOf returns the value type that holds v, the type of its elements where it is
// a slice (else the same type again), and whether there is one.
func typeOf(v any) (t, elem ValueType, ok bool) {
	switch v.(type) {
	case uint8:
		return Uint8, Uint8, true
	case int8:
		return Int8, Int8, true
	case uint16:
		return Uint16, Uint16, true
	case int16:
		return Int16, Int16, true
	case uint32:
		return Uint32, Uint32, true
	case int32:
		return Int32, Int32, true
	case float32:
		return Float32, Float32, true
	case bool:
		return Bool, Bool, true
	case string:
		return String, String, true
	case uint64:
		return Uint64, Uint64, true
	case int64:
		return Int64, Int64, true
	case float64:
		return Float64, Float64, true
	case []uint8:
		return Array, Uint8, true
	case []int8:
		return Array, Int8, true
	case []uint16:
		return Array, Uint16, true
	case []int16:
		return Array, Int16, true
	case []uint32:
		return Array, Uint32, true
	case []int32:
		return Array, Int32, true
	case []float32:
		return Array, Float32, true
	case []bool:
		return Array, Bool, true
	case []string:
		return Array, String, true
	case []uint64:
		return Array, Uint64, true
	case []int64:
		return Array, Int64, true
	case []float64:
		return Array, Float64, true
	}
	return 0, 0, false
}

// Metadata is what [Value] reads: a [File] or a [Set].
type Metadata interface {
	Get(key string) (KV, bool)
	String() string // names it in messages
}

// Value returns the metadata entry of the given key as a T, and whether f
// has it. As in llama.cpp the type must be exactly T's: an int32 entry is not
// returned as a uint32; the error then wraps [ErrType]. A slice is the file's own
// and must not be changed.
func Value[T Metadatum](f Metadata, key string) (value T, ok bool, err error) {
	kv, ok := f.Get(key)
	if !ok {
		return value, false, nil
	}
	value, ok = kv.Value.(T)
	if !ok {
		return value, false, fmt.Errorf("gguf: reading metadata %q from %s: %w: it is %T, want %s", key, f, ErrType, kv.Value, reflect.TypeFor[T]())
	}
	return value, true, nil
}
