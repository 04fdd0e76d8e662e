package http1

import "math"

// Bounds of what is between the chunks' data. It is dropped, and without bounds
// an upstream could keep a reader busy for good with a body of no length.
const (
	maxSizeDigits   = 16      // of a chunk's size
	maxExtension    = 256     // bytes of a chunk's extensions
	maxTrailerBytes = 8 << 10 // of all trailer fields
)

// chunkState is what a ChunkDecoder expects next.
type chunkState byte

const (
	atSize      chunkState = iota // the first digit of a size
	inSize                        // a digit, extensions or CR
	inExtension                   // the rest of the extensions, or CR
	atSizeLF                      // the LF of a size line
	inData                        // the rest of the data
	atDataCR                      // the CRLF after data
	atDataLF                      // its LF
	atTrailer                     // a trailer field, or the CR of the empty line
	inName                        // the rest of a trailer field's name, and its colon
	inValue                       // the rest of its value, or CR
	atTrailerLF                   // the LF of a trailer field
	atEndLF                       // the LF of the empty line
	atEnd                         // nothing: the body is complete
)

// A ChunkDecoder decodes a chunked body (RFC 9112, section 7.1) that arrives in
// pieces. Extensions are skipped; trailer fields are checked and dropped, as the
// section allows. Its zero value begins a body.
type ChunkDecoder struct {
	state chunkState
	count int   // digits, extension bytes or trailer bytes so far
	left  int64 // the size read so far; then the data still to come
}

// Decode decodes from src into dst until one of them is used up, the body ends,
// or it turns out to be malformed. It returns how many bytes it wrote and how
// many it read. dst may begin where src begins: what is written is never longer
// than what was read.
func (d *ChunkDecoder) Decode(dst, src []byte) (written, read int, err error) {
	for read < len(src) && d.state != atEnd {
		if d.state != inData {
			if err := d.step(src[read]); err != nil {
				return written, read, err
			}
			read++
			continue
		}
		if written == len(dst) {
			break
		}
		piece := src[read:]
		if int64(len(piece)) > d.left {
			piece = piece[:d.left]
		}
		n := copy(dst[written:], piece)
		written, read, d.left = written+n, read+n, d.left-int64(n)
		if d.left == 0 {
			d.state = atDataCR
		}
	}
	return written, read, nil
}

// Done reports whether the body is complete.
func (d *ChunkDecoder) Done() bool { return d.state == atEnd }

// step takes one byte that is not data.
func (d *ChunkDecoder) step(c byte) error {
	if d.state >= atTrailer {
		return d.stepTrailer(c)
	}
	switch d.state {
	case atSize, inSize:
		return d.stepSize(c)
	case inExtension:
		d.count++
		switch {
		case c == '\r':
			d.state = atSizeLF
		case !IsText(c):
			return Syntax("control character in chunk extension")
		case d.count > maxExtension:
			return Syntax("chunk extensions too long")
		}
	case atSizeLF:
		if c != '\n' {
			return Syntax("bare CR in chunk size line")
		}
		d.state, d.count = inData, 0
		if d.left == 0 {
			d.state = atTrailer
		}
	case atDataCR:
		if c != '\r' {
			return Syntax("chunk longer than its size")
		}
		d.state = atDataLF
	case atDataLF:
		if c != '\n' {
			return Syntax("bare CR after chunk")
		}
		d.state = atSize
	}
	return nil
}

// stepSize takes a byte of a chunk's size. Nothing but hexadecimal digits is a
// size, not even with whitespace around it: readers have disagreed on all else.
func (d *ChunkDecoder) stepSize(c byte) error {
	digit := int64(0)
	switch {
	case '0' <= c && c <= '9':
		digit = int64(c - '0')
	case 'a' <= c && c <= 'f':
		digit = int64(c-'a') + 10
	case 'A' <= c && c <= 'F':
		digit = int64(c-'A') + 10
	case d.state == inSize && c == ';':
		d.state, d.count = inExtension, 0
		return nil
	case d.state == inSize && c == '\r':
		d.state = atSizeLF
		return nil
	default:
		return Syntax("malformed chunk size")
	}
	d.count++
	if d.count > maxSizeDigits || d.left > math.MaxInt64>>4 {
		return Syntax("chunk size out of range")
	}
	d.state, d.left = inSize, d.left<<4|digit
	return nil
}

// stepTrailer takes a byte after the last chunk: trailer fields, to which the
// rules of parseField apply, and the empty line.
func (d *ChunkDecoder) stepTrailer(c byte) error {
	if d.count++; d.count > maxTrailerBytes {
		return Syntax("trailer fields too long")
	}
	switch d.state {
	case atTrailer:
		switch {
		case c == '\r':
			d.state = atEndLF
		case IsToken(c):
			d.state = inName
		default:
			return Syntax("malformed trailer field")
		}
	case inName:
		switch {
		case c == ':':
			d.state = inValue
		case !IsToken(c):
			return Syntax("malformed trailer field")
		}
	case inValue:
		switch {
		case c == '\r':
			d.state = atTrailerLF
		case !IsText(c):
			return Syntax("control character in trailer field")
		}
	case atTrailerLF, atEndLF:
		if c != '\n' {
			return Syntax("bare CR in trailer fields")
		}
		if d.state == atTrailerLF {
			d.state = atTrailer
		} else {
			d.state = atEnd
		}
	}
	return nil
}
