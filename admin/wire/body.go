package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"latchkey/apikey"
)

// MaxBody is the longest body of a call, in bytes.
const MaxBody = 64 << 10

// An Optional is a field of a body that may be absent, null or a value: an
// update treats the three differently.
type Optional[T any] struct {
	Set   bool // the field is there
	Null  bool // and it is null
	Value T    // otherwise
}

// Pointer returns nil if the field is absent, and else the value, the zero
// value standing for null.
func (o Optional[T]) Pointer() *T {
	if !o.Set {
		return nil
	}
	return &o.Value
}

// A Body is the fields of a JSON object. Its methods take a field each and keep
// the first thing that is wrong, which Err returns; a field nobody took is wrong
// too. That way no misspelt restriction is passed over in silence.
type Body struct {
	fields map[string]json.RawMessage
	order  []string
	taken  []string
	err    error
}

// ReadBody reads the call's body: a JSON object in UTF-8, or nothing if it may
// be left out.
func (c *Call) ReadBody(optional bool) (*Body, error) {
	if t := c.Request.Header.ContentType(); len(t) > 0 {
		media, params, err := mime.ParseMediaType(string(t))
		charset := strings.ToLower(params["charset"])
		if err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") || charset != "" && charset != "utf-8" {
			return nil, errorf(415, "Content-Type must be application/json in UTF-8")
		}
	}
	data, err := c.readAll()
	if err != nil {
		return nil, err
	}
	if optional && len(bytes.TrimSpace(data)) == 0 {
		return &Body{}, nil
	}
	return ParseBody(data)
}

// readAll reads the body and no more than its limit.
func (c *Call) readAll() ([]byte, error) {
	if c.Request.Header.ContentLength() > MaxBody {
		return nil, errorf(413, "the body is longer than %d bytes", MaxBody)
	}
	stream := c.RequestBodyStream()
	if stream == nil {
		return c.PostBody(), nil
	}
	data, err := io.ReadAll(io.LimitReader(stream, MaxBody+1))
	switch {
	case err != nil:
		return nil, errorf(400, "the body could not be read to its end")
	case len(data) > MaxBody:
		return nil, errorf(413, "the body is longer than %d bytes", MaxBody)
	}
	return data, nil
}

// ParseBody reads a JSON object. Unlike encoding/json alone it refuses invalid
// UTF-8, a field that is there twice, and anything after the object.
func ParseBody(data []byte) (*Body, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errorf(400, "the body is empty; it must be a JSON object")
	}
	if !utf8.Valid(data) {
		return nil, errorf(400, "the body is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil {
		return nil, malformed(err, d)
	} else if t != json.Delim('{') {
		return nil, errorf(400, "the body must be a JSON object")
	}
	b := &Body{fields: map[string]json.RawMessage{}}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, malformed(err, d)
		}
		name := t.(string) // the decoder lets nothing else stand here
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, malformed(err, d)
		}
		if _, twice := b.fields[name]; twice {
			return nil, BadRequest(name, "is there twice")
		}
		b.fields[name] = value
		b.order = append(b.order, name)
	}
	if _, err := d.Token(); err != nil {
		return nil, malformed(err, d)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errorf(400, "the body goes on after the JSON object")
	}
	return b, nil
}

func malformed(err error, d *json.Decoder) *Error {
	at := d.InputOffset()
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		at = syntax.Offset
	}
	return errorf(400, "the body is not valid JSON near byte %d", at)
}

// Err returns the first thing that is wrong. It is asked once all fields that
// the call knows have been taken.
func (b *Body) Err() error {
	if b.err != nil {
		return b.err
	}
	for _, name := range b.order {
		if !slices.Contains(b.taken, name) {
			if len(b.taken) == 0 {
				return BadRequest(quoteName(name), "is not a field of this call; it has none")
			}
			return BadRequest(quoteName(name), "is not a field of this call; it has "+strings.Join(b.taken, ", "))
		}
	}
	return nil
}

// quoteName makes a name that the caller chose fit for a message.
func quoteName(name string) string {
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "") + "…"
	}
	return fmt.Sprintf("%q", name)
}

// Require reports the field as missing if it is absent.
func (b *Body) Require(name string) *Body {
	if _, ok := b.fields[name]; !ok {
		b.fail(name, "is required")
	}
	return b
}

// Text takes a field that is a string of min to max characters. Where null is
// not allowed, and for an empty string where min is not zero, it is wrong.
func (b *Body) Text(name string, minimum, maximum int, nullable bool) Optional[string] {
	o := take[string](b, name, nullable, "a string")
	if n := utf8.RuneCountInString(o.Value); o.Set && !o.Null && (n < minimum || n > maximum) {
		b.fail(name, fmt.Sprintf("must have %d to %d characters", minimum, maximum))
	}
	return o
}

// IPs takes a field that is a list of addresses and CIDR blocks.
func (b *Body) IPs(name string, nullable bool) Optional[apikey.Allowlist] {
	texts := take[[]*string](b, name, nullable, "a list of strings")
	out := Optional[apikey.Allowlist]{Set: texts.Set, Null: texts.Null}
	entries := make([]string, len(texts.Value))
	for i, t := range texts.Value {
		if t == nil {
			b.fail(name, fmt.Sprintf("entry %d is null; it must be a string", i+1))
			return out
		}
		entries[i] = *t
	}
	list, err := apikey.ParseAllowlist(entries)
	if err != nil {
		b.fail(name, err.Error())
	}
	out.Value = list
	return out
}

// take decodes one field.
func take[T any](b *Body, name string, nullable bool, kind string) (o Optional[T]) {
	b.taken = append(b.taken, name)
	raw, ok := b.fields[name]
	if !ok {
		return o
	}
	o.Set = true
	if string(raw) == "null" {
		if o.Null = true; !nullable {
			b.fail(name, "must be "+kind+", not null")
		}
		return o
	}
	if err := json.Unmarshal(raw, &o.Value); err != nil {
		b.fail(name, "must be "+kind)
	}
	return o
}

func (b *Body) fail(name, problem string) {
	if b.err == nil {
		b.err = BadRequest(name, problem)
	}
}
