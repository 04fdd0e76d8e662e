package apikey

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"
)

// An ID names a key in public. It is a UUID of version 7 (RFC 9562, section
// 5.7): its bytes sort by the time of creation, so key order is creation order
// and a page of a list is a range scan. The zero ID names no key.
type ID [16]byte

// ErrInvalidID reports text that is not a UUID.
var ErrInvalidID = errors.New("not a key ID: want a UUID such as 0199f3a2-5c1e-7b3a-9d4e-2f6a8b0c1d2e")

// NewID makes the ID of a key created at now. The 12 bits after the
// millisecond hold its fraction (RFC 9562, section 6.2, method 3), so that
// IDs keep their order to a quarter of a microsecond; the other 62 are taken
// from entropy.
func NewID(now time.Time, entropy [8]byte) ID {
	var id ID
	ms := uint64(now.UnixMilli())
	fraction := uint64(now.Nanosecond()%1e6) << 12 / 1e6
	binary.BigEndian.PutUint64(id[:8], ms<<16|0x7000|fraction)
	copy(id[8:], entropy[:])
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID reads the text form made by String. Upper-case digits are accepted;
// any other spelling of a UUID is not, so that a key has one name.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, ErrInvalidID
	}
	for _, part := range [...]struct{ text, at, end int }{{0, 0, 4}, {9, 4, 6}, {14, 6, 8}, {19, 8, 10}, {24, 10, 16}} {
		n := part.end - part.at
		if _, err := hex.Decode(id[part.at:part.end], []byte(s[part.text:part.text+2*n])); err != nil {
			return ID{}, ErrInvalidID
		}
	}
	return id, nil
}

// String returns the UUID in lower case with hyphens.
func (id ID) String() string {
	var b [36]byte
	return string(id.AppendTo(b[:0]))
}

// AppendTo appends the text form to b.
func (id ID) AppendTo(b []byte) []byte {
	b = append(hex.AppendEncode(b, id[:4]), '-')
	b = append(hex.AppendEncode(b, id[4:6]), '-')
	b = append(hex.AppendEncode(b, id[6:8]), '-')
	b = append(hex.AppendEncode(b, id[8:10]), '-')
	return hex.AppendEncode(b, id[10:])
}

// MarshalText writes the text form, for logs and other encoders.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// IsZero reports whether the ID names no key.
func (id ID) IsZero() bool { return id == ID{} }
