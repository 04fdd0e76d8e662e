package load

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
)

// Keys says which keys requests carry.
type Keys struct {
	File  string // a key a line, all of one length
	Count int    // of those, from the first on; 0 is all
	Draw  string // uniform, zipf or once; empty is uniform
}

// The ways to draw keys.
const (
	Uniform = "uniform" // each as often as any other
	Zipf    = "zipf"    // the n-th as often as 1/n says (exponent 1.0)
	Once    = "once"    // one after the other, and from the start again
)

// A keyFile holds a file of keys in memory as it is.
type keyFile struct {
	data  []byte
	line  int // bytes, with the line's end
	count int
	next  func(r *rand.Rand, n int64) int
}

func openKeys(k Keys) (*keyFile, error) {
	data, err := os.ReadFile(k.File)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	line := bytes.IndexByte(data, '\n') + 1
	if line < 2 || len(data)%line != 0 {
		return nil, fmt.Errorf("%s: not a file of keys, one a line and all of one length", k.File)
	}
	f := &keyFile{data: data, line: line, count: len(data) / line}
	if k.Count > f.count || k.Count < 0 {
		return nil, fmt.Errorf("%s: has %d keys, not %d", k.File, f.count, k.Count)
	}
	if k.Count > 0 {
		f.count = k.Count
	}
	switch k.Draw {
	case Uniform, "":
		f.next = func(r *rand.Rand, _ int64) int { return r.IntN(f.count) }
	case Zipf:
		f.next = func(r *rand.Rand, _ int64) int { return zipf(r.Float64(), f.count) }
	case Once:
		f.next = func(_ *rand.Rand, n int64) int { return int(n % int64(f.count)) }
	default:
		return nil, errors.New("keys are drawn uniform, zipf or once, not " + k.Draw)
	}
	return f, nil
}

// zipf maps a number in [0, 1) to one in [0, count) by the inverse of the
// distribution function of the density 1/x on [1, count+1), which is Zipf's law with
// the exponent 1 but for rounding; math/rand's needs one above 1.
func zipf(u float64, count int) int {
	return min(int(math.Pow(float64(count)+1, u))-1, count-1)
}

func (f *keyFile) at(i int) []byte { return f.data[i*f.line : (i+1)*f.line-1] }

func (f *keyFile) draw(r *rand.Rand, n int64) []byte { return f.at(f.next(r, n)) }
