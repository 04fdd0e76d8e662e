package keystore

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/apikey"
)

// fullKey has a value in every field.
func fullKey() apikey.Key {
	k := testKey("acme", 1)
	k.Environment = "test"
	k.AllowedIPs, _ = apikey.ParseAllowlist([]string{
		"10.0.0.0/8", "192.0.2.1", "192.0.2.1/32", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1", "::/0", "::ffff:192.0.2.7"})
	k.Pin = apikey.Pin{Version: "2026-01-01", ChangedAt: epoch.Add(1), NoDowngradeAfter: epoch.Add(time.Hour)}
	k.Pin.ChangedAt = apikey.Instant(k.Pin.ChangedAt)
	k.UpdatedAt = epoch.Add(time.Minute)
	k.ExpiresAt = time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)
	k.RevokedAt = time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC)
	k.EndedAt = time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)
	k.Rotation = apikey.Rotation{ReplacedBy: testKey("acme", 2).ID, GraceEndsAt: epoch.Add(2 * time.Hour),
		EveryDays: 90, NextAt: epoch.Add(3 * time.Hour), WebhookURL: "https://hooks.example/rotated?a=b",
		Pending: testKey("acme", 3).ID}
	return k
}

func fullEvent() apikey.Event {
	return apikey.Event{Place: apikey.Place{Revision: 7, Ordinal: 2}, Origin: ops, Action: apikey.ActionRotated, Key: testKey("acme", 1).ID, Tenant: "acme",
		Fields: []apikey.Field{apikey.FieldName, apikey.FieldRotation}}
}

func TestKeysComeBackAsTheyWere(t *testing.T) {
	at := func(edit func(*apikey.Key)) apikey.Key {
		k := fullKey()
		edit(&k)
		return k
	}
	for _, tc := range []struct {
		name string
		key  apikey.Key
	}{
		{"every field set", fullKey()},
		{"no field set", apikey.Key{}},
		{"a new key", testKey("acme", 1)},
		{"text in other scripts", at(func(k *apikey.Key) { k.Name = "клавиша ☃ 鍵" })},
		{"text longer than one byte of length", at(func(k *apikey.Key) { k.Name = strings.Repeat("x", 255) })},
		{"an empty scope among others", at(func(k *apikey.Key) { k.Scopes = []string{"a", "", "b"} })},
		{"a whole second", at(func(k *apikey.Key) { k.CreatedAt = time.Unix(1, 0).UTC() })},
		{"1970 itself", at(func(k *apikey.Key) { k.CreatedAt = time.Unix(0, 0).UTC() })},
		{"updated before it was created", at(func(k *apikey.Key) { k.UpdatedAt = k.CreatedAt.Add(-time.Hour) })},
		{"a day", at(func(k *apikey.Key) { k.Rotation.EveryDays = 1 })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			row := appendKey(nil, &tc.key)
			got, err := decodeKey(row, tc.key.ID, tc.key.Digest)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.key, *got, netipValues); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for name, at := range map[string]time.Time{"CreatedAt": got.CreatedAt, "ExpiresAt": got.ExpiresAt} {
				if at.Location() != time.UTC {
					t.Errorf("%s is in %v, want UTC", name, at.Location())
				}
			}
		})
	}
}

// A key keeps no reference to the row, whose memory is Pebble's.
func TestDecodedKeyOwnsItsMemory(t *testing.T) {
	want := fullKey()
	row := appendKey(nil, &want)
	got, err := decodeKey(row, want.ID, want.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for i := range row {
		row[i] = 0xee
	}
	if diff := cmp.Diff(want, *got, netipValues); diff != "" {
		t.Errorf("after the row was overwritten (-want +got):\n%s", diff)
	}
}

func TestEventsComeBackAsTheyWere(t *testing.T) {
	at := func(edit func(*apikey.Event)) apikey.Event {
		e := fullEvent()
		edit(&e)
		return e
	}
	for _, tc := range []struct {
		name  string
		event apikey.Event
	}{
		{"every field set", fullEvent()},
		{"made from within", at(func(e *apikey.Event) { e.Address = netip.Addr{} })},
		{"made over IPv6", at(func(e *apikey.Event) { e.Address = netip.MustParseAddr("2001:db8::1") })},
		{"a creation", at(func(e *apikey.Event) { e.Fields = nil })},
		{"no request ID", at(func(e *apikey.Event) { e.RequestID = "" })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := decodeEvent(appendEvent(nil, &tc.event), tc.event.Place)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.event, got, netipValues); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Every value has one encoding; any other bytes are damage.
func TestDecodeKeyRefuses(t *testing.T) {
	at := func(t time.Time) []byte { return appendTime(nil, tagCreatedAt, t)[2:] }
	field := func(tag byte, v ...byte) []byte { return appendField(nil, tag, v) }
	join := func(fields ...[]byte) []byte { return bytes.Join(fields, nil) }
	now := field(tagCreatedAt, at(epoch)...)
	for _, tc := range []struct {
		name string
		row  []byte
	}{
		{"a tag alone", []byte{tagTenant}},
		{"a length without bytes", []byte{tagTenant, 4}},
		{"a length beyond the row", []byte{tagTenant, 4, 'a'}},
		{"a length of 64 bits", append([]byte{tagTenant}, bytes.Repeat([]byte{0xff}, 10)...)},
		{"a length longer than needed", []byte{tagTenant, 0x81, 0x00, 'a'}},
		{"an empty field", []byte{tagTenant, 0}},
		{"tag zero", field(0, 'a')},
		{"an unknown tag", field(tagWebhookURL+1, 'a')},
		{"a field twice", join(field(tagTenant, 'a'), field(tagTenant, 'a'))},
		{"fields out of order", join(field(tagSubject, 'a'), field(tagTenant, 'a'))},
		{"a time longer than needed", field(tagCreatedAt, 0x82, 0x00)},
		{"a time with a byte too many", field(tagCreatedAt, append(at(epoch), 0)...)},
		{"a time that does not end", field(tagCreatedAt, 0x80)},
		{"the zero time spelled out", field(tagCreatedAt, zeroTimeBytes()...)},
		{"a change at the time of creation", join(now, field(tagUpdatedAt, at(epoch)...))},
		{"a number of zero", field(tagRotateEveryDays, 0)},
		{"a number longer than needed", field(tagRotateEveryDays, 0x81, 0x00)},
		{"a number with a byte too many", field(tagRotateEveryDays, 1, 1)},
		{"a number out of range", field(tagRotateEveryDays, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01)},
		{"a replacement that is too short", field(tagReplacedBy, make([]byte, 15)...)},
		{"the zero ID spelled out", field(tagReplacedBy, make([]byte, 16)...)},
		{"a scope beyond the field", field(tagScopes, 2, 'a')},
		{"a scope's length longer than needed", field(tagScopes, 0x81, 0x00, 'a')},
		{"an address cut short", field(tagAllowedIPs, 4, 32, 10, 0, 0)},
		{"an address of no family", field(tagAllowedIPs, 5, 32, 10, 0, 0, 0, 0)},
		{"a block with bits beyond its prefix", field(tagAllowedIPs, 4, 8, 10, 0, 0, 1)},
		{"a prefix longer than its address", field(tagAllowedIPs, 4, 33, 10, 0, 0, 1)},
		{"a block written as one address", field(tagAllowedIPs, 4|singleBit, 8, 10, 0, 0, 0)},
		{"an IPv4-mapped block", field(tagAllowedIPs, append([]byte{16, 128}, netip.MustParseAddr("::ffff:10.0.0.1").AsSlice()...)...)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if k, err := decodeKey(tc.row, apikey.ID{}, apikey.Digest{}); !errors.Is(err, errCorrupt) {
				t.Errorf("%s decodes to %+v, %v", hex.EncodeToString(tc.row), k, err)
			}
		})
	}
}

// zeroTimeBytes is what the zero time would be if it were not left out.
func zeroTimeBytes() []byte { return binary.AppendVarint(nil, time.Time{}.UnixMicro()) }

func TestDecodeEventRefuses(t *testing.T) {
	e := fullEvent()
	for _, tc := range []struct {
		name string
		row  []byte
	}{
		{"no row at all", nil},
		{"no key", appendText(nil, tagEventActor, "ops")},
		{"the zero key", appendField(nil, tagEventKey, make([]byte, 16))},
		{"an address of no family", appendField(nil, tagEventAddress, []byte{1, 2, 3})},
		{"an unknown tag", append(appendField(nil, tagEventKey, e.Key[:]), appendText(nil, tagEventFields+1, "x")...)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := decodeEvent(tc.row, apikey.Place{Revision: 1}); !errors.Is(err, errCorrupt) {
				t.Errorf("decodes to %+v, %v", got, err)
			}
		})
	}
}

func FuzzDecodeKey(f *testing.F) {
	for _, k := range []apikey.Key{{}, testKey("acme", 1), fullKey()} {
		f.Add(appendKey(nil, &k))
	}
	f.Add([]byte{tagCreatedAt, 1, 2, tagUpdatedAt, 1, 2})
	f.Add(appendField(nil, tagReplacedBy, make([]byte, 16)))
	f.Fuzz(func(t *testing.T, row []byte) {
		k, err := decodeKey(row, apikey.ID{1}, apikey.Digest{2})
		if err != nil {
			if k != nil || !errors.Is(err, errCorrupt) {
				t.Fatalf("gave %v, %v", k, err)
			}
			return
		}
		if again := appendKey(nil, k); !bytes.Equal(again, row) {
			t.Fatalf("%x decodes to what encodes to %x", row, again)
		}
	})
}

func FuzzDecodeEvent(f *testing.F) {
	e := fullEvent()
	f.Add(appendEvent(nil, &e))
	f.Add(appendEvent(nil, &apikey.Event{Key: apikey.ID{1}}))
	f.Add(appendEvent(nil, &apikey.Event{SigningKey: "k", Tenant: apikey.AnyTenant}))
	for _, wrong := range []apikey.Event{{SigningKey: "k", Tenant: "acme"}, {SigningKey: "k", Tenant: apikey.AnyTenant, Key: apikey.ID{1}}, {Tenant: apikey.AnyTenant}} {
		row := appendEvent(nil, &wrong)
		if _, err := decodeEvent(row, apikey.Place{Revision: 1}); !errors.Is(err, errCorrupt) {
			f.Errorf("%+v is read: %v", wrong, err)
		}
		f.Add(row)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, row []byte) {
		e, err := decodeEvent(row, apikey.Place{Revision: 1})
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if again := appendEvent(nil, &e); !bytes.Equal(again, row) {
			t.Fatalf("%x decodes to what encodes to %x", row, again)
		}
	})
}
