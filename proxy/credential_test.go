package proxy

import (
	"bytes"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// credentialHead makes a head of a query and of fields "Name: value".
func credentialHead(query string, fields ...string) *head {
	h := &head{query: []byte(query)}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		h.fields = append(h.fields, field{[]byte(name), []byte(value)})
	}
	return h
}

func TestFindCredential(t *testing.T) {
	header, bearer, query := Credential{Header: "x-api-key"}, Credential{Bearer: true}, Credential{Query: "api key"}
	all := []Credential{header, bearer, query}
	for _, tc := range []struct {
		name   string
		places []Credential
		head   *head
		want   string
		place  Credential
	}{
		{"the first place that has a key", all, credentialHead("api+key=q", "Authorization: Bearer b", "X-Api-Key: h"), "h", header},
		{"the order is that of the places, not of the request", []Credential{query, bearer, header}, credentialHead("api+key=q", "X-Api-Key: h", "Authorization: Bearer b"), "q", query},
		{"an absent place is passed over", all, credentialHead("api+key=q", "Authorization: Bearer b"), "b", bearer},
		{"no place has a key", all, credentialHead("key=q", "Cookie: h"), "", Credential{}},
		{"no place is looked at that is not named", []Credential{header}, credentialHead("api+key=q", "Authorization: Bearer b"), "", Credential{}},
		{"an empty value is none", all, credentialHead("api+key=&api+key", "X-Api-Key: ", "Authorization: Bearer"), "", Credential{}},
		{"an empty value beside a key does not count", all, credentialHead("", "X-Api-Key: ", "X-Api-Key: h"), "h", header},
		{"a header in any case", []Credential{{Header: "X-API-KEY"}}, credentialHead("", "X-Api-Key: h"), "h", Credential{Header: "X-API-KEY"}},
		{"a header's value is taken as it is", all, credentialHead("", "X-Api-Key: Bearer %61 b"), "Bearer %61 b", header},
		{"the scheme in any case", all, credentialHead("", "Authorization: bEARER B"), "B", bearer},
		{"spaces after the scheme", all, credentialHead("", "Authorization: Bearer   b"), "b", bearer},
		{"another scheme", all, credentialHead("", "Authorization: Basic b"), "", Credential{}},
		{"a scheme that begins alike", all, credentialHead("", "Authorization: Bearerb"), "", Credential{}},
		{"another scheme beside Bearer does not count", all, credentialHead("", "Authorization: Basic a", "Authorization: Bearer b"), "b", bearer},
		{"a parameter's value is decoded", all, credentialHead("api+key=a%2Bb+c"), "a+b c", query},
		{"a parameter's name is decoded", all, credentialHead("x=1&%61pi%20key=q"), "q", query},
		{"a parameter's name in another case is another", all, credentialHead("API+key=q"), "", Credential{}},
		{"a value that cannot be decoded is taken as it is", all, credentialHead("api+key=%zz"), "%zz", query},
		{"only the first equals sign divides", all, credentialHead("api+key=a=b"), "a=b", query},

		{"a header twice is no key", all, credentialHead("", "X-Api-Key: a", "X-Api-Key: b"), twice, header},
		{"even if both agree", all, credentialHead("", "X-Api-Key: a", "X-Api-Key: a"), twice, header},
		{"Bearer twice is no key", all, credentialHead("", "Authorization: Bearer a", "Authorization: bearer b"), twice, bearer},
		{"a parameter twice is no key", all, credentialHead("api+key=a&%61pi+key=b"), twice, query},
		{"two in one place do not lead to the next", all, credentialHead("api+key=q", "X-Api-Key: a", "X-Api-Key: b", "Authorization: Bearer b"), twice, header},
		{"two in a later place do not matter", all, credentialHead("", "X-Api-Key: h", "Authorization: Bearer a", "Authorization: Bearer b"), "h", header},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := findCredential(tc.places, tc.head)
			if string(got.value) != tc.want || got.place != tc.place {
				t.Errorf("findCredential = %q in %+v, want %q in %+v", got.value, got.place, tc.want, tc.place)
			}
			if tc.want == "" && got.value != nil {
				t.Errorf("value = %q, want nil where there is none", got.value)
			}
		})
	}
}

func TestWithoutParameter(t *testing.T) {
	for _, tc := range []struct{ name, query, want string }{
		{"alone", "key=k", ""},
		{"first", "key=k&a=1", "a=1"},
		{"last", "a=1&key=k", "a=1"},
		{"between", "a=1&key=k&b=2", "a=1&b=2"},
		{"every occurrence", "key=1&a=1&key=2&key=3", "a=1"},
		{"without a value", "a=1&key&b=2", "a=1&b=2"},
		{"with an empty value", "a=1&key=", "a=1"},
		{"with a value that cannot be decoded", "key=%zz&a=1", "a=1"},
		{"in an encoded spelling", "%6bey=k&k%65y=k&%6B%65%79=k&a=1", "a=1"},
		{"names that only contain it stay", "keys=1&akey=2&key%00=3&Key=4", "keys=1&akey=2&key%00=3&Key=4"},
		{"a value of that name stays", "a=key&b=key=k", "a=key&b=key=k"},
		{"others stay byte for byte and in order", "b=%2f+%2F&a=%zz&&%=;c&a=2&key=k&=x", "b=%2f+%2F&a=%zz&&%=;c&a=2&=x"},
		{"an ampersand at the end stays", "a=1&", "a=1&"},
		{"also alone", "&", "&"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(withoutParameter([]byte(tc.query), "key")); got != tc.want {
				t.Errorf("withoutParameter(%q) = %q, want %q", tc.query, got, tc.want)
			}
		})
	}
}

// FuzzQuery compares with net/url, which upstreams written in Go read queries
// with: none of the parameter is left for it to see, and it sees all others.
func FuzzQuery(f *testing.F) {
	for _, query := range []string{"key=k", "a=1&key=k&b=2", "%6bey=k", "key=%zz", "key", "&&key&", "a;key=1", "%zzkey=1", "k+ey=1", "=key", "key==&=key"} {
		f.Add(query, "key")
	}
	f.Add("api+key=1&api%20key=2", "api key")
	f.Fuzz(func(t *testing.T, query, name string) {
		if name == "" {
			t.Skip("a place in the query has a name")
		}
		rest := withoutParameter([]byte(query), name)
		got, _ := url.ParseQuery(string(rest))
		want, _ := url.ParseQuery(query)
		if got.Has(name) {
			t.Errorf("withoutParameter(%q, %q) = %q, which still has it", query, name, rest)
		}
		delete(want, name)
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("withoutParameter(%q, %q) changes others (-got +want):\n%s", query, name, diff)
		}
		for part := range bytes.FieldsFuncSeq(rest, func(c rune) bool { return c == '&' }) { // byte for byte, in order
			_, after, found := strings.Cut("&"+query+"&", "&"+string(part)+"&")
			if !found {
				t.Fatalf("withoutParameter(%q, %q) = %q, of which %q is new or out of place", query, name, rest, part)
			}
			query = after
		}
	})
}
