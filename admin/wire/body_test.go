package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// FuzzParseBody holds ParseBody against encoding/json: what it takes is an object
// that encoding/json takes, with as many fields and nothing lost; what it refuses
// it refuses as the caller's mistake.
func FuzzParseBody(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, `{"a":1,"a":2}`, `{"a":"\ud83d\ude00"}`, `{"a":"\ud83d"}`, `{"\udc00":1}`, `{"a":"\\ud800"}`,
		`{"a":{"b":[1,null]}} `, `{"a":1}{}`, `[]`, `{"a":`, "{\"a\":\"\xff\"}", `{"a":"\u00e9\ufffd"}`, strings.Repeat("[", 100)} {
		f.Add([]byte(seed))
	}
	f.Add([]byte(`{"a":1e999}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBody(data)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Status != 400 || e.Message == "" {
				t.Fatalf("ParseBody(%q) = %v, want a 400 that says why", data, err)
			}
			return
		}
		var fields map[string]any
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber() // no float64 holds 1e999
		if err := d.Decode(&fields); err != nil || !json.Valid(data) || len(fields) != len(b.fields) {
			t.Fatalf("ParseBody(%q) took %d fields; encoding/json finds %d, %v", data, len(b.fields), len(fields), err)
		}
		plain, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		// encoding/json puts U+FFFD where there was no character.
		asked := bytes.ContainsRune(data, '\ufffd') || bytes.Contains(bytes.ToLower(data), []byte(`\ufffd`))
		if bytes.ContainsRune(plain, '\ufffd') && !asked {
			t.Fatalf("ParseBody(%q) lost a character", data)
		}
	})
}

func TestFieldsNobodyTookAreRefused(t *testing.T) {
	b, err := ParseBody([]byte(`{"name": "x", "nmae": "y"}`))
	if err != nil {
		t.Fatal(err)
	}
	b.Text("name", 1, 10, false)
	if err := b.Err(); err == nil || !strings.Contains(err.Error(), `"nmae"`) || !strings.Contains(err.Error(), "it has name") {
		t.Errorf("Err = %v, want it to name the field and those there are", err)
	}
}

func TestEveryWrongValueIsKept(t *testing.T) {
	b, err := ParseBody([]byte(`{"name": "", "days": 0, "ips": ["x"]}`))
	if err != nil {
		t.Fatal(err)
	}
	b.Text("name", 1, 10, false)
	b.Int("days", 1, 10)
	b.IPs("ips", false)
	var first *Error
	if err := b.Err(); !errors.As(err, &first) || len(first.More) != 2 || first.Field != "name" || first.More[0].Field != "days" || first.More[1].Field != "ips" {
		t.Errorf("Err = %+v", first)
	}
}
