package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"
)

// answerTimeout is when an answer that has not ended counts as an error.
const answerTimeout = 30 * time.Second

// A worker is one connection.
type worker struct {
	run     *run
	number  int
	ledger  *ledger
	conn    net.Conn
	request []byte
	key     []byte // the part of request that is the key
	buf     []byte // of answers
	have    int    // bytes of it that are filled
	random  *rand.Rand
	renewed time.Time // when the deadline was set
}

func newWorker(r *run, number int, l *ledger) *worker {
	w := &worker{run: r, number: number, ledger: l, buf: make([]byte, 16<<10),
		random: rand.New(rand.NewPCG(uint64(number), 0x6c61746368))}
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: bench\r\n", r.plan.Method, r.plan.Path)
	if r.plan.BodyBytes > 0 {
		head += fmt.Sprintf("Content-Length: %d\r\n", r.plan.BodyBytes)
	}
	head += "X-API-Key: "
	w.request = append([]byte(head), r.keys.at(0)...)
	w.key = w.request[len(head):]
	w.request = append(w.request, "\r\n\r\n"...)
	w.request = append(w.request, bytes.Repeat([]byte{'b'}, r.plan.BodyBytes)...)
	w.key = w.request[len(head) : len(head)+len(w.key)]
	return w
}

func (w *worker) dial(ctx context.Context) error {
	c, err := w.run.dial(ctx)
	if err != nil {
		return err
	}
	w.conn, w.have, w.renewed = c, 0, time.Time{}
	return nil
}

// work sends requests until ctx ends.
func (w *worker) work(ctx context.Context) {
	defer func() {
		if w.conn != nil {
			_ = w.conn.Close()
		}
	}()
	p := w.run.plan
	var every, offset time.Duration
	if p.Rate > 0 {
		every = time.Duration(float64(p.Connections) / p.Rate * float64(time.Second))
		offset = every * time.Duration(w.number) / time.Duration(p.Connections)
	}
	for i := 0; ; i++ {
		n := w.run.taken.Add(1)
		if p.Requests > 0 && n > int64(p.Requests) {
			return
		}
		sent := time.Now()
		if every > 0 {
			due := w.run.began.Add(offset + time.Duration(i)*every)
			var ok bool
			if sent, ok = w.await(ctx, due); !ok {
				return
			}
		}
		if sent.After(w.run.until) {
			return
		}
		copy(w.key, w.run.keys.draw(w.random, n-1))
		err := w.exchange(ctx, sent)
		ended := time.Now()
		if ended.After(w.run.until) {
			return // neither it nor an error of the end counts
		}
		if err != nil {
			if !w.fail(ctx, sent, err) {
				return
			}
			continue
		}
		if !sent.Before(w.run.from) {
			w.ledger.record(ended.Sub(sent))
		}
	}
}

// await waits until a request is due, and returns the time from which it counts: that
// at which it was due, unless only the timer was late.
func (w *worker) await(ctx context.Context, due time.Time) (from time.Time, ok bool) {
	now := time.Now()
	if !due.After(now) {
		return due, true
	}
	select {
	case <-ctx.Done():
		return due, false
	case <-time.After(due.Sub(now)):
	}
	now = time.Now()
	if !due.Before(w.run.from) {
		w.ledger.late(now.Sub(due))
	}
	return now, true
}

// fail counts an error and connects anew. It reports whether to go on.
func (w *worker) fail(ctx context.Context, sent time.Time, err error) bool {
	if !sent.Before(w.run.from) {
		w.ledger.fail()
	}
	w.run.note(err)
	_ = w.conn.Close()
	w.conn = nil
	for ctx.Err() == nil {
		if w.dial(ctx) == nil {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond): // so that a server that is gone is not asked without end
		}
	}
	return false
}

// exchange sends the request and reads its answer to the end.
func (w *worker) exchange(ctx context.Context, now time.Time) error {
	// Setting a deadline for each request would cost a tenth of the load's speed.
	if now.Sub(w.renewed) > time.Second {
		if err := w.conn.SetDeadline(now.Add(answerTimeout)); err != nil {
			return fmt.Errorf("set a deadline: %w", err)
		}
		w.renewed = now
	}
	if _, err := w.conn.Write(w.request); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	status, body, ends, err := w.readHead()
	if err != nil {
		return err
	}
	length := body
	for body > 0 {
		n := min(w.have, body)
		if body -= n; n < w.have {
			return errors.New("bytes after the answer")
		}
		if w.have = 0; body == 0 {
			break
		}
		if err := w.fill(); err != nil {
			return fmt.Errorf("read a body: %w", err)
		}
	}
	if !slices.Contains(w.run.plan.Want, status) {
		err = fmt.Errorf("status %d, not %d", status, w.run.plan.Want)
	} else if status == 200 && length != w.run.plan.Bytes {
		err = fmt.Errorf("%d bytes, not %d", length, w.run.plan.Bytes) // not from the upstream
	}
	if w.have > 0 {
		return errors.New("bytes after the answer")
	}
	if ends && err == nil {
		_ = w.conn.Close()
		return w.dial(ctx)
	}
	return err
}

func (w *worker) fill() error {
	if w.have == len(w.buf) {
		return errors.New("a head of more than 16 KiB")
	}
	n, err := w.conn.Read(w.buf[w.have:])
	w.have += n
	if n > 0 {
		return nil
	}
	return err
}

// readHead reads the head of an answer, and leaves what follows it in buf. It skips
// answers that go before the final one.
func (w *worker) readHead() (status, body int, ends bool, err error) {
	for {
		end := bytes.Index(w.buf[:w.have], []byte("\r\n\r\n"))
		if end < 0 {
			if err := w.fill(); err != nil {
				return 0, 0, false, fmt.Errorf("read a head: %w", err)
			}
			continue
		}
		status, body, ends, err = parseHead(w.buf[:end+2])
		w.have = copy(w.buf, w.buf[end+4:w.have])
		if err != nil || status >= 200 {
			return status, body, ends, err
		}
	}
}

// parseHead reads the little that the load needs to know. It allocates only for
// what it refuses.
func parseHead(head []byte) (status, body int, ends bool, err error) {
	line, head, _ := bytes.Cut(head, []byte("\r\n"))
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return 0, 0, false, errors.New("an answer that is not HTTP/1")
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, false, errors.New("a status that is no number")
	}
	body = -1
	for len(head) > 0 {
		line, head, _ = bytes.Cut(head, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")):
			if body, err = strconv.Atoi(string(value)); err != nil || body < 0 {
				return 0, 0, false, errors.New("a Content-Length that is no number")
			}
		case len(name) == len("Connection") && bytes.EqualFold(name, []byte("Connection")):
			ends = bytes.EqualFold(value, []byte("close"))
		}
	}
	if status < 200 || status == 204 || status == 304 {
		return status, 0, ends, nil
	}
	if body < 0 {
		return 0, 0, false, fmt.Errorf("an answer with status %d and no Content-Length", status)
	}
	return status, body, ends, nil
}
