package admin

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// TestNoRoomForTheAnswerToAnImport has the disk full under the answer, be it with the
// first lines or once all are written, and the store with room left for the keys: it is
// 507, and says how many came in.
func TestNoRoomForTheAnswerToAnImport(t *testing.T) {
	good := `{"sha256":"` + strings.Repeat("ab", 32) + "\"}\n"
	for _, tc := range []struct {
		name   string
		atomic bool
		lines  int
		want   string
	}{
		{"once all is read", false, 10, "read up to line 11, and 10 keys"},
		{"once all is read, all or none", true, 10, "read up to line 11, and 10 keys"},
		{"on the way", false, 2000, fmt.Sprintf("and %d keys", 5*importChunk)},
		{"on the way, all or none", true, 2000, "and 0 keys"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
			if err != nil {
				t.Skipf("no device that is full: %v", err)
			}
			in := &intake{call: &wire.Call{RequestCtx: &fasthttp.RequestCtx{}}, atomic: tc.atomic,
				reader: lineReader{format: apikey.NewSecretFormat("lk"), reach: "acme", tenant: "acme", next: time.Unix(1772000000, 0)},
				lines:  bufio.NewReader(strings.NewReader(strings.Repeat(good, tc.lines))),
				spool:  &spool{bufio.NewWriterSize(full, 64<<10), full}}
			err = in.answer(in.all(func(keys []apikey.Key) ([]error, error) { return make([]error, len(keys)), nil }))
			e := wire.AsError(err, nil)
			if e.Status != 507 || !strings.Contains(e.Message, tc.want) {
				t.Errorf("%d %s, want 507 and %q", e.Status, e.Message, tc.want)
			}
			if full.Close() == nil {
				t.Error("the file of the answer stays open")
			}
		})
	}
}
