package nettest

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// NoLeaks fails the test if, once all that it cleans up from here on is over, there are
// more goroutines or open descriptors than now. It is for tests that run beside no
// other.
func NoLeaks(t testing.TB) {
	t.Helper()
	goroutines, descriptors := Goroutines(), Descriptors()
	t.Cleanup(func() {
		for range 1000 {
			if Goroutines() <= goroutines && Descriptors() <= descriptors {
				return
			}
			<-time.After(10 * time.Millisecond)
		}
		t.Errorf("left behind: %d goroutines, %d descriptors\n%s", Goroutines()-goroutines, Descriptors()-descriptors, stacks())
	})
}

// Goroutines counts goroutines, but for two of fasthttp's: the one by which a server ends
// idle workers outlives it by up to ten seconds, and the one that tells the date goes on
// for ever.
func Goroutines() (n int) {
	for stack := range strings.SplitSeq(stacks(), "\n\n") {
		if !strings.Contains(stack, "fasthttp.(*workerPool).Start.func") && !strings.Contains(stack, "fasthttp.updateServerDate") {
			n++
		}
	}
	return n
}

func stacks() string {
	for size := 1 << 20; ; size *= 2 {
		b := make([]byte, size)
		if n := runtime.Stack(b, true); n < size {
			return string(b[:n])
		}
	}
}

// Descriptors counts what the process has open, but for the runtime's own poller. It
// is 0 where the system does not say.
func Descriptors() (n int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "anon_inode:") {
			n++
		}
	}
	return n
}
