package gguf

// Decoding a header: a buffered cursor that trusts no length it reads.

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
)

// readAhead is how much is read from the file at a time, and so the most that is
// read beyond the header.
const readAhead = 1 << 16

// decoder reads a header in sequence. The first failure stays in err, and what is
// read afterwards is zero.
type decoder struct {
	r      *bufio.Reader
	size   int64 // bytes that the header may take
	left   int64 // of them, not yet read
	capped bool  // size is the limit on headers, not the end of the file
	err    error
	word   [8]byte
}

// newDecoder starts at the beginning of the size bytes in r.
func newDecoder(r io.ReaderAt, size int64) *decoder {
	limit := min(size, maxHeader)
	section := io.NewSectionReader(r, 0, limit)
	return &decoder{r: bufio.NewReaderSize(section, readAhead), size: limit, left: limit, capped: limit < size}
}

// offset returns the number of bytes read.
func (d *decoder) offset() int64 { return d.size - d.left }

// fail keeps the first error.
func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
	}
}

// need reports whether n more bytes may be read, and fails otherwise.
func (d *decoder) need(n int64) bool {
	if d.err != nil {
		return false
	}
	if n > d.left {
		if d.capped {
			d.fail("the header takes more than %d bytes", d.size)
		} else {
			d.fail("%d bytes are wanted at byte %d of a file of %d; it is cut short or not a GGUF file", n, d.offset(), d.size)
		}
		return false
	}
	return true
}

// read fills p, with zeros on a failure.
func (d *decoder) read(p []byte) {
	if !d.need(int64(len(p))) {
		clear(p)
		return
	}
	n, err := io.ReadFull(d.r, p)
	d.left -= int64(n)
	if err != nil {
		clear(p)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			d.fail("the file ended at byte %d", d.offset())
			return
		}
		d.err = err
	}
}

func (d *decoder) uint8() uint8 {
	d.read(d.word[:1])
	return d.word[0]
}

func (d *decoder) uint16() uint16 {
	d.read(d.word[:2])
	return binary.LittleEndian.Uint16(d.word[:])
}

func (d *decoder) uint32() uint32 {
	d.read(d.word[:4])
	return binary.LittleEndian.Uint32(d.word[:])
}

func (d *decoder) uint64() uint64 {
	d.read(d.word[:8])
	return binary.LittleEndian.Uint64(d.word[:])
}

// count reads a number of things that each take at least size bytes, and fails
// when they cannot all be in the file.
func (d *decoder) count(what string, size int64) int64 {
	n := d.uint64()
	if d.err == nil && n > uint64(d.left/size) {
		d.fail("%d %s cannot be in the %d bytes that are left", n, what, d.left)
	}
	if d.err != nil {
		return 0
	}
	return int64(n)
}

// stringLen reads the length of a string.
func (d *decoder) stringLen() int {
	n := d.count("bytes of a string", 1)
	if n > maxString {
		d.fail("a string of %d bytes, more than %d", n, maxString)
		return 0
	}
	return int(n)
}

// appendBytes reads n bytes and appends them to b, which grows only as fast as
// bytes arrive.
func (d *decoder) appendBytes(b []byte, n int) []byte {
	for n > 0 && d.err == nil {
		step := min(n, readAhead)
		b = slices.Grow(b, step)
		b = b[:len(b)+step]
		d.read(b[len(b)-step:])
		n -= step
	}
	return b
}

func (d *decoder) string() string {
	n := d.stringLen()
	return string(d.appendBytes(nil, n))
}

// value reads a value of type t as its Go type, nil on a failure.
func (d *decoder) value(t ValueType) any {
	switch t {
	case Uint8:
		return d.uint8()
	case Int8:
		return int8(d.uint8())
	case Uint16:
		return d.uint16()
	case Int16:
		return int16(d.uint16())
	case Uint32:
		return d.uint32()
	case Int32:
		return int32(d.uint32())
	case Float32:
		return math.Float32frombits(d.uint32())
	case Bool:
		return d.uint8() != 0
	case String:
		return d.string()
	case Array:
		return d.array()
	case Uint64:
		return d.uint64()
	case Int64:
		return int64(d.uint64())
	case Float64:
		return math.Float64frombits(d.uint64())
	}
	d.fail("unknown value type %d", uint32(t))
	return nil
}

// array reads an array as a slice of its elements' Go type.
func (d *decoder) array() any {
	t := ValueType(d.uint32())
	switch {
	case d.err != nil:
		return nil
	case t == Array:
		d.fail("an array of arrays, which llama.cpp does not read either")
		return nil
	case int64(t) >= int64(len(valueTypes)):
		d.fail("unknown type of array elements %d", uint32(t))
		return nil
	}
	n := d.count("elements of an array", valueTypes[t].size)
	if n > maxElements {
		d.fail("an array of %d elements, more than %d", n, maxElements)
	}
	if d.err != nil {
		return nil
	}
	switch t {
	case Uint8:
		return elements(d, n, 1, func(b []byte) uint8 { return b[0] })
	case Int8:
		return elements(d, n, 1, func(b []byte) int8 { return int8(b[0]) })
	case Bool:
		return elements(d, n, 1, func(b []byte) bool { return b[0] != 0 })
	case Uint16:
		return elements(d, n, 2, binary.LittleEndian.Uint16)
	case Int16:
		return elements(d, n, 2, func(b []byte) int16 { return int16(binary.LittleEndian.Uint16(b)) })
	case Uint32:
		return elements(d, n, 4, binary.LittleEndian.Uint32)
	case Int32:
		return elements(d, n, 4, func(b []byte) int32 { return int32(binary.LittleEndian.Uint32(b)) })
	case Float32:
		return elements(d, n, 4, func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) })
	case Uint64:
		return elements(d, n, 8, binary.LittleEndian.Uint64)
	case Int64:
		return elements(d, n, 8, func(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) })
	case Float64:
		return elements(d, n, 8, func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) })
	}
	return d.strings(n)
}

// elements reads n elements of size bytes, a buffer of them at a time so that the
// slice grows only as fast as bytes arrive.
func elements[T any](d *decoder, n, size int64, convert func([]byte) T) []T {
	var buf [4096]byte
	var all []T
	for int64(len(all)) < n && d.err == nil {
		chunk := buf[:min(int64(len(buf)), (n-int64(len(all)))*size)]
		d.read(chunk)
		for i := int64(0); i < int64(len(chunk)); i += size {
			all = append(all, convert(chunk[i:i+size]))
		}
	}
	if all == nil {
		all = []T{}
	}
	return all
}

// strings reads n strings. They share one backing string: a vocabulary is a
// hundred thousand short ones.
func (d *decoder) strings(n int64) []string {
	var text []byte
	var ends []int
	for int64(len(ends)) < n && d.err == nil {
		text, ends = d.buffered(text, ends, n)
		if int64(len(ends)) == n {
			break
		}
		text = d.appendBytes(text, d.stringLen())
		ends = append(ends, len(text))
	}
	if d.err != nil {
		return nil
	}
	backing := string(text)
	all := make([]string, len(ends))
	start := 0
	for i, end := range ends {
		all[i] = backing[start:end]
		start = end
	}
	return all
}

// buffered takes the strings that lie whole in the buffer, as strings does: most of them, without
// two reads for each.
func (d *decoder) buffered(text []byte, ends []int, n int64) ([]byte, []int) {
	b, _ := d.r.Peek(d.r.Buffered())
	at := 0
	for int64(len(ends)) < n && len(b)-at >= 8 {
		size := binary.LittleEndian.Uint64(b[at:])
		if size > uint64(len(b)-at-8) {
			break
		}
		text = append(text, b[at+8:at+8+int(size)]...)
		at += 8 + int(size)
		ends = append(ends, len(text))
	}
	d.r.Discard(at)
	d.left -= int64(at)
	return text, ends
}
