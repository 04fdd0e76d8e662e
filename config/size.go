package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, never negative. As text it is a whole number with
// an optional suffix KiB, MiB or GiB: 0, 4096, 16KiB.
type Size int64

// The units a Size is written in.
const (
	KiB Size = 1 << (10 * (iota + 1))
	MiB
	GiB
)

// unit pairs a suffix with its worth.
type unit struct {
	suffix string
	bytes  Size
}

func units() [3]unit { return [...]unit{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}} }

// String writes the size with the largest suffix that loses nothing.
func (s Size) String() string {
	for _, u := range units() {
		if s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalText reads the text form and refuses what int64 cannot hold.
func (s *Size) UnmarshalText(text []byte) error {
	digits, scale := string(text), Size(1)
	for _, u := range units() {
		if rest, found := strings.CutSuffix(digits, u.suffix); found {
			digits, scale = rest, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && Size(n) > math.MaxInt64/scale:
		return errors.New("size is larger than 8 EiB")
	case err != nil:
		return errors.New("not a whole number of bytes with an optional KiB, MiB or GiB")
	}
	*s = Size(n) * scale
	return nil
}
