package wire

import (
	"bytes"
	"testing"

	"github.com/valyala/fasthttp"
)

// fuzzCall returns a call of the operator that asks to be made once.
func fuzzCall(operator, key, tenant string, body []byte) *Call {
	ctx := new(fasthttp.RequestCtx)
	ctx.Request.Header.SetMethod("POST")
	ctx.Request.SetRequestURI("/v1/api-keys")
	ctx.Request.Header.Set(idempotencyField, key)
	if tenant != "" {
		ctx.Request.Header.Set(tenantField, tenant)
	}
	return &Call{RequestCtx: ctx, Operator: Operator{Name: operator, Tenant: "acme"}, body: body}
}

// FuzzIdempotency requires of two calls that their receipts have one name only if
// operator and Idempotency-Key are the same, and one fingerprint only if all that they
// ask for is: neither may run into the other, wherever the border between the parts is.
func FuzzIdempotency(f *testing.F) {
	f.Add("ops", "a", "acme", []byte("{}"), "ops", "a", "acme", []byte("{}"))
	f.Add("ops", "ab", "c", []byte("d"), "opsa", "b", "", []byte("cd"))
	f.Add("ops", "a b", "", []byte{}, "ops\x00a", "b", "\x00", []byte{0})
	f.Fuzz(func(t *testing.T, operator, key, tenant string, body []byte, operator2, key2, tenant2 string, body2 []byte) {
		one, two := fuzzCall(operator, key, tenant, body), fuzzCall(operator2, key2, tenant2, body2)
		name, print, err := one.idempotency()
		name2, print2, err2 := two.idempotency()
		// As it came through fasthttp, which cuts what cannot be in a header.
		key, key2 = string(one.Request.Header.Peek(idempotencyField)), string(two.Request.Header.Peek(idempotencyField))
		for k, err := range map[string]error{key: err, key2: err2} {
			good := len(k) > 0 && len(k) <= 255
			for _, c := range []byte(k) {
				good = good && c > 0x20 && c < 0x7f
			}
			if (err == nil) != good {
				t.Fatalf("%q: %v", k, err)
			}
		}
		if err != nil || err2 != nil {
			return
		}
		if (*name == *name2) != (operator == operator2 && key == key2) {
			t.Errorf("%q of %q and %q of %q: one receipt: %t", key, operator, key2, operator2, *name == *name2)
		}
		same := bytes.Equal(body, body2) && bytes.Equal(one.Request.Header.Peek(tenantField), two.Request.Header.Peek(tenantField))
		if (print == print2) != same {
			t.Errorf("%q for %q and %q for %q: one call: %t", body, tenant, body2, tenant2, print == print2)
		}
	})
}
