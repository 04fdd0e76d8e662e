package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
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
// what is wrong with it for Err; a field nobody took is wrong too. That way no
// misspelt restriction is passed over in silence.
type Body struct {
	fields    map[string]json.RawMessage
	order     []string
	taken     []string
	malformed []*Error
	invalid   []*Error
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
	c.body = data
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
	data, err := io.ReadAll(io.LimitReader(c.Upload(0), MaxBody+1))
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
	if halfPair(data) {
		return nil, errorf(400, "the body has half of a surrogate pair, which is no character")
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

// halfPair reports whether an escape in the text stands for half of a surrogate
// pair (RFC 8259, section 8.2), which encoding/json would replace in silence.
func halfPair(data []byte) bool {
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		unit := codeUnit(data[i:])
		switch {
		case unit < 0:
			i++ // the escaped character, which may be a backslash
		case utf16.IsSurrogate(unit):
			if i+6 > len(data) || utf16.DecodeRune(unit, codeUnit(data[i+6:])) == utf8.RuneError {
				return true
			}
			i += 11
		default:
			i += 5
		}
	}
	return false
}

// codeUnit returns the UTF-16 code unit of an escape \uXXXX that the text begins
// with, -1 if it begins with something else.
func codeUnit(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

func malformed(err error, d *json.Decoder) *Error {
	at := d.InputOffset()
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		at = syntax.Offset
	}
	return errorf(400, "the body is not valid JSON near byte %d", at)
}

// Err returns what is wrong: the first malformed field if there is one, else
// every field with a value it cannot have. It is asked once all fields that the
// call knows have been taken.
func (b *Body) Err() error {
	for _, name := range b.order {
		if slices.Contains(b.taken, name) {
			continue
		}
		fields := "none"
		if len(b.taken) > 0 {
			fields = strings.Join(b.taken, ", ")
		}
		return BadRequest(quoteName(name), "is not a field of this call; it has "+fields)
	}
	if len(b.malformed) > 0 {
		return b.malformed[0]
	}
	if len(b.invalid) > 0 {
		first := b.invalid[0]
		first.More = b.invalid[1:]
		return first
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
		b.Refuse(name, "is required")
	}
	return b
}

// Refuse reports a value that the field cannot have.
func (b *Body) Refuse(name, problem string) {
	b.invalid = append(b.invalid, Invalid(name, problem))
}

// Text takes a field that is a string of minimum to maximum characters, or null
// where that is allowed.
func (b *Body) Text(name string, minimum, maximum int, nullable bool) Optional[string] {
	o := take[string](b, name, nullable, "a string")
	if n := utf8.RuneCountInString(o.Value); o.Set && !o.Null && (n < minimum || n > maximum) {
		b.Refuse(name, fmt.Sprintf("must have %d to %d characters", minimum, maximum))
	}
	return o
}

// Int takes a field that is a whole number from least to most.
func (b *Body) Int(name string, least, most int) Optional[int] {
	o := take[int](b, name, false, "a whole number")
	if o.Set && !o.Null && (o.Value < least || o.Value > most) {
		b.Refuse(name, fmt.Sprintf("must be a whole number from %d to %d", least, most))
	}
	return o
}

// Bool takes a field that is true or false.
func (b *Body) Bool(name string) Optional[bool] { return take[bool](b, name, false, "true or false") }

// Time takes a field that is an instant (RFC 3339).
func (b *Body) Time(name string) Optional[time.Time] { return b.time(name, false) }

// NullableTime takes a field that is an instant (RFC 3339) or null.
func (b *Body) NullableTime(name string) Optional[time.Time] { return b.time(name, true) }

func (b *Body) time(name string, nullable bool) Optional[time.Time] {
	text := take[string](b, name, nullable, "a string")
	out := Optional[time.Time]{Set: text.Set}
	if !text.Set || text.Null {
		return out
	}
	var ok bool
	if out.Value, ok = ParseTime(text.Value); !ok {
		b.Refuse(name, "must be a time such as 2027-01-31T00:00:00Z")
	}
	return out
}

// ParseTime reads an instant (RFC 3339). One that no answer could show, because in
// UTC it is before the year 0 or beyond 9999, is refused, and so is the zero time.
func ParseTime(text string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, false
	}
	t = t.UTC()
	// time.Parse also takes an hour of one digit, a comma in a fraction, and an
	// offset of a day or of 60 minutes.
	hour, offset := text[13] == ':', text[len(text)-5:]
	exact := hour && !strings.Contains(text, ",") && (strings.HasSuffix(text, "Z") || offset < "24" && offset[3:] < "60")
	return t, exact && !t.IsZero() && t.Year() >= 0 && t.Year() <= 9999
}

// Texts takes a field that is a list of strings.
func (b *Body) Texts(name string, nullable bool) Optional[[]string] {
	list := take[[]*string](b, name, nullable, "a list of strings")
	out := Optional[[]string]{Set: list.Set, Null: list.Null}
	for i, t := range list.Value {
		if t == nil {
			b.mistake(name, fmt.Sprintf("entry %d is null; it must be a string", i+1))
			return out
		}
		out.Value = append(out.Value, *t)
	}
	return out
}

// IPs takes a field that is a list of addresses and CIDR blocks.
func (b *Body) IPs(name string, nullable bool) Optional[apikey.Allowlist] {
	texts := b.Texts(name, nullable)
	list, err := apikey.ParseAllowlist(texts.Value)
	if err != nil {
		b.Refuse(name, err.Error())
	}
	return Optional[apikey.Allowlist]{Set: texts.Set, Null: texts.Null, Value: list}
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
			b.mistake(name, "must be "+kind+", not null")
		}
		return o
	}
	if err := json.Unmarshal(raw, &o.Value); err != nil {
		b.mistake(name, "must be "+kind)
	}
	return o
}

func (b *Body) mistake(name, problem string) {
	b.malformed = append(b.malformed, BadRequest(name, problem))
}
