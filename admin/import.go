package admin

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// An Importer takes in keys that were made elsewhere. Both methods return for
// each key what keeps it out, and give apikey.ErrExists where its secret or ID
// is there already.
type Importer interface {
	Import(apikey.Origin, []apikey.Key) ([]error, error)
	ImportAll(by apikey.Origin, fill func(add func([]apikey.Key) ([]error, error)) error) error
}

const (
	importChunk = 256              // lines that are imported together
	importLine  = wire.MaxBody     // bytes in a line
	importIdle  = 30 * time.Second // the longest wait for more of the body, and for the client to take more of the answer
)

// importKeys answers POST /import: a key a line, and in the answer an ID or an
// error a line. The answer goes through a file, because a client that sends a
// million lines before it reads one would otherwise wait for us while we wait
// for it.
func (p *Plane) importKeys(ctx *fasthttp.RequestCtx) {
	if err := p.runImport(ctx); err != nil {
		p.fail(ctx, writeError, wire.AsError(err, nil))
	}
}

func (p *Plane) runImport(ctx *fasthttp.RequestCtx) error {
	operator, err := p.operator(ctx, wire.Administer)
	if err != nil {
		return err
	}
	now := p.options.Now()
	c := &wire.Call{RequestCtx: ctx, Operator: operator, Now: now, Client: clientAddr(ctx), RequestID: wire.RequestID(ctx)}
	if err := c.OnlyParams("atomic"); err != nil { // the tenant is in the lines, or X-Latchkey-Tenant
		return err
	}
	atomic, err := c.ChoiceParam("atomic", "false", "false", "true")
	if err != nil {
		return err
	}
	tenant, err := c.Tenant("tenant", "")
	if err != nil {
		return err
	}
	reach, err := c.Reach()
	if err != nil {
		return err
	}
	if t := string(ctx.Request.Header.ContentType()); t != "" {
		switch media, _, err := mime.ParseMediaType(t); {
		case err == nil && (media == "application/x-ndjson" || media == "application/ndjson" || media == "application/jsonl"):
		default:
			return &wire.Error{Status: 415, Message: "Content-Type must be application/x-ndjson: a JSON object a line"}
		}
	}
	spool, err := newSpool(p.options.SpoolDir)
	if err != nil {
		return wire.Unavailable("there is no place to keep what becomes of each line; no key was imported", err)
	}
	in := &intake{call: c, plane: p, atomic: atomic == "true", reader: lineReader{format: p.options.Keys.Format, reach: reach, tenant: tenant, next: now},
		lines: bufio.NewReaderSize(c.Upload(importIdle), importLine+2), spool: spool}
	if in.atomic {
		err = in.atomically(p.options.Importer)
	} else {
		err = in.all(func(keys []apikey.Key) ([]error, error) {
			by := c.Origin()
			by.At = apikey.Instant(p.options.Now()) // of these keys: a body can take long
			return p.options.Importer.Import(by, keys)
		})
	}
	return in.answer(err)
}

// An intake is one import under way.
type intake struct {
	call   *wire.Call
	plane  *Plane
	atomic bool
	reader lineReader
	lines  *bufio.Reader
	spool  *spool

	line             int
	imported, failed int
}

var (
	errLines = errors.New("a line was refused")            // of an import that is all or nothing
	errBody  = errors.New("the body ended before its end") // the client left
	errSpool = errors.New("keep the answer to an import")
)

// atomically imports all lines or none.
func (in *intake) atomically(to Importer) error {
	return to.ImportAll(in.call.Origin(), func(add func([]apikey.Key) ([]error, error)) error {
		if err := in.all(add); err != nil {
			return err
		}
		if in.failed > 0 {
			return errLines
		}
		return nil
	})
}

// all reads every line and adds their keys, some at a time.
func (in *intake) all(add func([]apikey.Key) ([]error, error)) error {
	for more := true; more; {
		var chunk []outcome
		var err error
		if chunk, more, err = in.chunk(); err != nil {
			return err
		}
		var keys []apikey.Key
		for i := range chunk {
			if chunk[i].err == nil {
				keys = append(keys, chunk[i].key)
			}
		}
		refused, fault := add(keys)
		for i := range chunk {
			switch {
			case chunk[i].err != nil:
			case fault != nil:
				chunk[i].err = wire.AsError(fault, nil)
			default:
				chunk[i].err, refused = refused[0], refused[1:]
			}
		}
		if fault == nil {
			fault = in.taken(chunk)
		}
		if err := errors.Join(fault, in.note(chunk)); err != nil {
			return err
		}
	}
	return nil
}

// An outcome is what became of a line.
type outcome struct {
	line int
	key  apikey.Key
	err  error
}

// chunk reads the next lines, and reports whether there may be more. Empty lines
// are passed over.
func (in *intake) chunk() (out []outcome, more bool, err error) {
	for len(out) < importChunk {
		text, err := in.lines.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.lines.ReadSlice('\n')
		}
		if err != nil && err != io.EOF {
			return out, false, errBody
		}
		in.line++
		if long {
			out = append(out, outcome{in.line, apikey.Key{}, fmt.Errorf("the line is longer than %d bytes", importLine)})
		} else if text = bytes.TrimSpace(text); len(text) > 0 {
			key, bad := in.reader.read(text)
			out = append(out, outcome{in.line, key, bad})
		}
		if err == io.EOF {
			return out, false, nil
		}
	}
	return out, true, nil
}

// note writes what became of lines to the answer. It counts them all, also where that
// fails: they are imported.
func (in *intake) note(chunk []outcome) error {
	var fault error
	for _, o := range chunk {
		var err error
		if o.err == nil {
			in.imported++
			_, err = fmt.Fprintf(in.spool, `{"line":%d,"id":"%s"}`+"\n", o.line, o.key.ID)
		} else {
			in.failed++
			err = in.spool.fail(o.line, problemOf(o.err))
		}
		if fault == nil && err != nil {
			fault = fmt.Errorf("%w: %w", errSpool, err)
		}
	}
	return fault
}

// problemOf says what keeps a line's key out.
func problemOf(err error) string {
	if errors.Is(err, apikey.ErrExists) {
		return "a key with this secret or this id is there already"
	}
	return strings.Replace(err.Error(), "the body", "the line", 1)
}

// answer sends what became of each line. A fault ends an import where it
// occurred, and lines behind that have no answer; without atomic=true what was
// imported before stays.
func (in *intake) answer(fault error) error {
	status, reason := 200, "not imported, because another line was refused"
	if fault != nil && in.atomic {
		in.imported = 0
	}
	switch {
	case errors.Is(fault, errLines):
		status = 422
	case errors.Is(fault, errBody):
		in.spool.discard()
		return &wire.Error{Status: 400, Message: fmt.Sprintf("the body could not be read beyond line %d; %d keys were imported before", in.line, in.imported)}
	case errors.Is(fault, errSpool):
		return in.unkept(fault)
	case fault != nil && in.imported == 0 && in.failed == 0:
		in.spool.discard()
		return fault
	case fault != nil:
		e := wire.AsError(fault, nil)
		status, reason = e.Status, "not imported: "+e.Error()
	}
	h := &in.call.Response.Header
	h.Set("X-Latchkey-Imported", strconv.Itoa(in.imported))
	h.Set("X-Latchkey-Refused", strconv.Itoa(in.failed))
	in.call.SetStatusCode(status)
	in.call.SetContentType("application/x-ndjson")
	send := in.spool.send
	if fault != nil && in.atomic {
		send = func(ctx *fasthttp.RequestCtx) error { return in.spool.sendNone(ctx, reason) }
	}
	if err := send(in.call.RequestCtx); err != nil {
		return in.unkept(err)
	}
	return nil
}

// unkept says what came of an import whose answer could not be kept.
func (in *intake) unkept(err error) error {
	in.spool.discard()
	return wire.Unavailable(fmt.Sprintf("what became of each line could not be kept; the body was read up to line %d, and %d keys were imported", in.line, in.imported), err)
}

// A spool is an answer that is kept in a file until it is sent. The file has no
// name: however the process ends, nothing is left of it.
type spool struct {
	*bufio.Writer
	file *os.File
}

func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "answer-*.spool")
	if err != nil {
		return nil, fmt.Errorf("make a file for the answer: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("make a file for the answer: %w", err), f.Close())
	}
	return &spool{bufio.NewWriterSize(f, 64<<10), f}, nil
}

func (s *spool) fail(line int, problem string) error {
	text, err := json.Marshal(problem)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s, `{"line":%d,"error":%s}`+"\n", line, text)
	return err
}

func (s *spool) rewind() error {
	if err := s.Flush(); err != nil {
		return err
	}
	_, err := s.file.Seek(0, io.SeekStart)
	return err
}

func (s *spool) discard() { _ = s.file.Close() } // it is gone either way

// send makes the spool the answer's body.
func (s *spool) send(ctx *fasthttp.RequestCtx) error {
	if err := s.rewind(); err != nil {
		return err
	}
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	ctx.SetBodyStream(&timedBody{ReadCloser: s.file, conn: ctx}, int(info.Size()))
	return nil
}

// sendNone makes the spool the answer's body, with an error in place of every ID.
func (s *spool) sendNone(ctx *fasthttp.RequestCtx, reason string) error {
	if err := s.rewind(); err != nil {
		return err
	}
	none := &noneImported{File: s.file, lines: bufio.NewScanner(s.file), reason: reason}
	ctx.SetBodyStream(&timedBody{ReadCloser: none, conn: ctx}, -1)
	return nil
}

// noneImported is a spool of an import that came to nothing.
type noneImported struct {
	*os.File
	lines  *bufio.Scanner
	reason string
	text   bytes.Buffer
}

// Read reads the next line.
func (n *noneImported) Read(b []byte) (int, error) {
	if n.text.Len() == 0 {
		if !n.lines.Scan() {
			return 0, cmp.Or(n.lines.Err(), io.EOF)
		}
		var o struct {
			Line  int    `json:"line"`
			Error string `json:"error"`
		}
		if err := json.Unmarshal(n.lines.Bytes(), &o); err != nil {
			return 0, err
		}
		o.Error = cmp.Or(o.Error, n.reason)
		n.text.Reset()
		if err := json.NewEncoder(&n.text).Encode(o); err != nil {
			return 0, err
		}
	}
	return n.text.Read(b)
}

// A timedBody gives the client time for each piece of a long answer.
type timedBody struct {
	io.ReadCloser
	conn *fasthttp.RequestCtx
}

// Read reads the next piece.
func (b *timedBody) Read(p []byte) (int, error) {
	if err := b.conn.SetWriteDeadline(time.Now().Add(importIdle)); err != nil {
		return 0, err
	}
	return b.ReadCloser.Read(p)
}

// entropy returns random bytes for an ID.
func entropy() (e [8]byte) {
	rand.Read(e[:]) // never fails: crypto/rand ends the process instead
	return e
}
