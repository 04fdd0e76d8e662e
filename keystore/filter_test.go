package keystore

import (
	"encoding/binary"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"latchkey/apikey"
)

func testDigest(series string, n int) apikey.Digest {
	return apikey.DigestOf(binary.BigEndian.AppendUint64([]byte(series), uint64(n)))
}

// falsePositives counts the absent digests, of a hundred thousand, that the
// filter lets through.
func falsePositives(f *digestFilter) int {
	let := 0
	for n := range 100_000 {
		d := testDigest("absent", n)
		if f.mayHave(&d) {
			let++
		}
	}
	return let
}

func TestFilterGrows(t *testing.T) {
	const digests = 200_000
	f := newDigestFilter(0)
	f.ready.Store(true)
	for n := range digests {
		d := testDigest("present", n)
		f.add(&d)
		if !f.mayHave(&d) {
			t.Fatalf("digest %d is denied right after it was added", n)
		}
	}
	for n := range digests {
		d := testDigest("present", n)
		if !f.mayHave(&d) {
			t.Fatalf("digest %d is denied after the filter has grown", n)
		}
	}
	var got []int
	for _, l := range *f.layers.Load() {
		got = append(got, l.capacity)
	}
	if diff := cmp.Diff([]int{65536, 131072, 262144}, got); diff != "" {
		t.Errorf("capacities of the layers (-want +got):\n%s", diff)
	}
	if got := falsePositives(f); got > 2000 {
		t.Errorf("%d of 100,000 absent digests are let through, want at most 2 %%", got)
	}
}

// Filled to the brim, one layer keeps to the rate the comment promises.
func TestFilterAtCapacity(t *testing.T) {
	const digests = 100_000
	f := newDigestFilter(digests)
	f.ready.Store(true)
	for n := range digests {
		d := testDigest("present", n)
		f.add(&d)
	}
	if got := len(*f.layers.Load()); got != 1 {
		t.Fatalf("%d layers for %d digests, want 1", got, digests)
	}
	if got := falsePositives(f); got > 1000 {
		t.Errorf("%d of 100,000 absent digests are let through, want at most 1 %%", got)
	}
}

func TestFilterRulesNothingOutUntilReady(t *testing.T) {
	f := newDigestFilter(0)
	d := testDigest("absent", 1)
	if !f.mayHave(&d) {
		t.Error("a filter that is not filled yet denies a digest")
	}
	f.ready.Store(true)
	if f.mayHave(&d) {
		t.Error("an empty filter lets a digest through")
	}
}

// After a reopening the filter knows every key there was, and every new one at
// once, while it still fills.
func TestFilterAfterReopen(t *testing.T) {
	disk := vfs.NewMem()
	s := openStore(t, disk)
	keys := manyKeys("acme", 0, 3000)
	mustCreate(t, s, keys...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, disk)
	for n := range 50 {
		k := testKey("acme", 10_000+n)
		mustCreate(t, s, k)
		keys = append(keys, k)
		wantKey(t, s, k)
	}
	s.scan.Wait()
	if !s.filter.ready.Load() {
		t.Fatal("the filter is not ready")
	}
	for _, k := range keys {
		wantKey(t, s, k)
	}
}

func TestFilterQuestionsDoNotAllocate(t *testing.T) {
	f := newDigestFilter(0)
	f.ready.Store(true)
	d := testDigest("absent", 1)
	if got := testing.AllocsPerRun(100, func() { f.mayHave(&d) }); got != 0 {
		t.Errorf("a question allocates %v times", got)
	}
}
