package keystore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"latchkey/apikey"
)

// errCorrupt reports a row whose bytes cannot have been written by this
// version. It is a fault, never a refusal of the key.
var errCorrupt = errors.New("row is damaged or was written by a newer version")

// A row is a sequence of fields: one byte of tag, the length as a uvarint, the
// bytes. Tags ascend and empty fields are left out, so every value has exactly
// one encoding (FuzzDecodeKey relies on it), and a tag this version does not
// know is an error rather than a loss.
const (
	tagTenant = iota + 1
	tagSubject
	tagName
	tagEnvironment
	tagHintHead
	tagHintTail
	tagAllowedIPs
	tagScopes
	tagPinVersion
	tagPinChangedAt
	tagPinNoDowngradeAfter
	tagCreatedAt
	tagUpdatedAt
	tagExpiresAt
	tagRevokedAt
	tagEndedAt
	tagReplacedBy
	tagGraceEndsAt
	tagRotateEveryDays
	tagRotateNextAt
	tagWebhookURL
	tagPending
)

// appendKey appends all of k but its ID and digest: one of them is in the
// row's key, the other before the fields.
func appendKey(b []byte, k *apikey.Key) []byte {
	b = appendText(b, tagTenant, k.Tenant)
	b = appendText(b, tagSubject, k.Subject)
	b = appendText(b, tagName, k.Name)
	b = appendText(b, tagEnvironment, k.Environment)
	b = appendText(b, tagHintHead, k.Hint.Head)
	b = appendText(b, tagHintTail, k.Hint.Tail)
	b = appendAllowlist(b, tagAllowedIPs, k.AllowedIPs)
	b = appendTexts(b, tagScopes, k.Scopes)
	b = appendText(b, tagPinVersion, k.Pin.Version)
	b = appendTime(b, tagPinChangedAt, k.Pin.ChangedAt)
	b = appendTime(b, tagPinNoDowngradeAfter, k.Pin.NoDowngradeAfter)
	b = appendTime(b, tagCreatedAt, k.CreatedAt)
	if !k.UpdatedAt.Equal(k.CreatedAt) {
		b = appendTime(b, tagUpdatedAt, k.UpdatedAt)
	}
	b = appendTime(b, tagExpiresAt, k.ExpiresAt)
	b = appendTime(b, tagRevokedAt, k.RevokedAt)
	b = appendTime(b, tagEndedAt, k.EndedAt)
	if !k.Rotation.ReplacedBy.IsZero() {
		b = appendField(b, tagReplacedBy, k.Rotation.ReplacedBy[:])
	}
	b = appendTime(b, tagGraceEndsAt, k.Rotation.GraceEndsAt)
	b = appendUint(b, tagRotateEveryDays, uint64(k.Rotation.EveryDays))
	b = appendTime(b, tagRotateNextAt, k.Rotation.NextAt)
	b = appendText(b, tagWebhookURL, k.Rotation.WebhookURL)
	if !k.Rotation.Pending.IsZero() {
		b = appendField(b, tagPending, k.Rotation.Pending[:])
	}
	return b
}

// decodeKey reads what appendKey wrote. The key's texts are parts of one copy of row.
func decodeKey(row []byte, id apikey.ID, digest apikey.Digest) (*apikey.Key, error) {
	k := &apikey.Key{ID: id, Digest: digest}
	err := eachField(string(row), func(tag byte, v fieldValue) (err error) {
		switch tag {
		case tagTenant:
			k.Tenant = string(v)
		case tagSubject:
			k.Subject = string(v)
		case tagName:
			k.Name = string(v)
		case tagEnvironment:
			k.Environment = string(v)
		case tagHintHead:
			k.Hint.Head = string(v)
		case tagHintTail:
			k.Hint.Tail = string(v)
		case tagAllowedIPs:
			k.AllowedIPs, err = v.allowlist()
		case tagScopes:
			k.Scopes, err = v.texts()
		case tagPinVersion:
			k.Pin.Version = string(v)
		case tagPinChangedAt:
			k.Pin.ChangedAt, err = v.time()
		case tagPinNoDowngradeAfter:
			k.Pin.NoDowngradeAfter, err = v.time()
		case tagCreatedAt:
			k.CreatedAt, err = v.time()
		case tagUpdatedAt:
			if k.UpdatedAt, err = v.time(); err == nil && k.UpdatedAt.Equal(k.CreatedAt) {
				err = errCorrupt
			}
		case tagExpiresAt:
			k.ExpiresAt, err = v.time()
		case tagRevokedAt:
			k.RevokedAt, err = v.time()
		case tagEndedAt:
			k.EndedAt, err = v.time()
		case tagReplacedBy:
			err = v.id(&k.Rotation.ReplacedBy)
		case tagGraceEndsAt:
			k.Rotation.GraceEndsAt, err = v.time()
		case tagRotateEveryDays:
			var days uint64
			days, err = v.uint()
			k.Rotation.EveryDays = int(days)
		case tagRotateNextAt:
			k.Rotation.NextAt, err = v.time()
		case tagWebhookURL:
			k.Rotation.WebhookURL = string(v)
		case tagPending:
			err = v.id(&k.Rotation.Pending)
		default:
			err = errCorrupt
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("decode key %s: %w", id, err)
	}
	if k.UpdatedAt.IsZero() {
		k.UpdatedAt = k.CreatedAt
	}
	return k, nil
}

const (
	tagEventAt = iota + 1
	tagEventActor
	tagEventAddress
	tagEventRequestID
	tagEventAction
	tagEventKey
	tagEventTenant
	tagEventFields
	tagEventSigningKey
)

// appendEvent appends all of e but its place, which is in the row's key.
func appendEvent(b []byte, e *apikey.Event) []byte {
	b = appendTime(b, tagEventAt, e.At)
	b = appendText(b, tagEventActor, e.Actor)
	if e.Address.IsValid() {
		b = appendField(b, tagEventAddress, e.Address.AsSlice())
	}
	b = appendText(b, tagEventRequestID, e.RequestID)
	b = appendText(b, tagEventAction, string(e.Action))
	if !e.Key.IsZero() {
		b = appendField(b, tagEventKey, e.Key[:])
	}
	b = appendText(b, tagEventTenant, e.Tenant)
	b = appendTexts(b, tagEventFields, e.Fields)
	return appendText(b, tagEventSigningKey, e.SigningKey)
}

// decodeEvent reads what appendEvent wrote.
func decodeEvent(row []byte, at apikey.Place) (apikey.Event, error) {
	e := apikey.Event{Place: at}
	err := eachField(string(row), func(tag byte, v fieldValue) (err error) {
		switch tag {
		case tagEventAt:
			e.At, err = v.time()
		case tagEventActor:
			e.Actor = string(v)
		case tagEventAddress:
			var ok bool
			if e.Address, ok = netip.AddrFromSlice([]byte(v)); !ok {
				err = errCorrupt
			}
		case tagEventRequestID:
			e.RequestID = string(v)
		case tagEventAction:
			e.Action = apikey.Action(v)
		case tagEventKey:
			err = v.id(&e.Key)
		case tagEventTenant:
			e.Tenant = string(v)
		case tagEventFields:
			var names []string
			names, err = v.texts()
			for _, n := range names {
				e.Fields = append(e.Fields, apikey.Field(n))
			}
		case tagEventSigningKey:
			e.SigningKey = string(v)
		default:
			err = errCorrupt
		}
		return err
	})
	signing := e.SigningKey != ""
	if err == nil && (e.Key.IsZero() != signing || signing && e.Tenant != apikey.AnyTenant) {
		err = errCorrupt
	}
	if err != nil {
		return apikey.Event{}, fmt.Errorf("decode audit event %d: %w", at.Revision, err)
	}
	return e, nil
}

func appendField(b []byte, tag byte, v []byte) []byte {
	return append(binary.AppendUvarint(append(b, tag), uint64(len(v))), v...)
}

func appendText(b []byte, tag byte, s string) []byte {
	if s == "" {
		return b
	}
	return append(binary.AppendUvarint(append(b, tag), uint64(len(s))), s...)
}

// appendTexts writes each text after its length.
func appendTexts[T ~string](b []byte, tag byte, list []T) []byte {
	if len(list) == 0 {
		return b
	}
	var v []byte
	for _, s := range list {
		v = append(binary.AppendUvarint(v, uint64(len(s))), s...)
	}
	return appendField(b, tag, v)
}

func appendUint(b []byte, tag byte, n uint64) []byte {
	if n == 0 {
		return b
	}
	return appendField(b, tag, binary.AppendUvarint(nil, n))
}

// appendTime writes microseconds since 1970; the zero time is left out.
func appendTime(b []byte, tag byte, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return appendField(b, tag, binary.AppendVarint(nil, t.UnixMicro()))
}

const singleBit = 0x80

// appendAllowlist writes each entry as one byte of prefix length, with the top
// bit of the byte before it set for a bare address, and the 4 or 16 bytes of
// the address.
func appendAllowlist(b []byte, tag byte, list apikey.Allowlist) []byte {
	if len(list) == 0 {
		return b
	}
	var v []byte
	for _, a := range list {
		kind := byte(a.Block.Addr().BitLen() / 8)
		if a.Single {
			kind |= singleBit
		}
		v = append(append(v, kind, byte(a.Block.Bits())), a.Block.Addr().AsSlice()...)
	}
	return appendField(b, tag, v)
}

// eachField calls f for each field of the row, in order, and requires that the
// tags ascend and nothing is left over.
func eachField(row string, f func(tag byte, v fieldValue) error) error {
	for last := byte(0); len(row) > 0; {
		tag := row[0]
		n, size := uvarint(row[1:])
		if size <= 0 || tag <= last || n == 0 || n > uint64(len(row)-1-size) {
			return errCorrupt
		}
		end := 1 + size + int(n)
		if err := f(tag, fieldValue(row[1+size:end])); err != nil {
			return err
		}
		last, row = tag, row[end:]
	}
	return nil
}

// A fieldValue is the bytes of one field, and the memory of what is text in it: the row is
// copied once.
type fieldValue string

func (v fieldValue) uint() (uint64, error) {
	n, size := uvarint(string(v))
	if size != len(v) || n == 0 || n > 1<<31 {
		return 0, errCorrupt
	}
	return n, nil
}

func (v fieldValue) time() (time.Time, error) {
	us, size := binary.Varint([]byte(v))
	t := time.UnixMicro(us).UTC()
	if size != len(v) || len(binary.AppendVarint(nil, us)) != size || t.IsZero() || t.UnixMicro() != us {
		return time.Time{}, errCorrupt
	}
	return t, nil
}

func (v fieldValue) id(id *apikey.ID) error {
	if len(v) != len(id) || apikey.ID([]byte(v)).IsZero() {
		return errCorrupt
	}
	*id = apikey.ID([]byte(v))
	return nil
}

func (v fieldValue) texts() ([]string, error) {
	var out []string
	for len(v) > 0 {
		n, size := uvarint(string(v))
		if size <= 0 || n > uint64(len(v)-size) {
			return nil, errCorrupt
		}
		out = append(out, string(v[size:size+int(n)]))
		v = v[size+int(n):]
	}
	return out, nil
}

func (v fieldValue) allowlist() (apikey.Allowlist, error) {
	var out apikey.Allowlist
	for len(v) > 0 {
		if len(v) < 2 {
			return nil, errCorrupt
		}
		single, width := v[0]&singleBit != 0, int(v[0]&^singleBit)
		if (width != 4 && width != 16) || len(v) < 2+width {
			return nil, errCorrupt
		}
		addr, _ := netip.AddrFromSlice([]byte(v[2 : 2+width]))
		block, err := addr.Prefix(int(v[1]))
		if err != nil || block.Addr() != addr || addr.Is4In6() || (single && !block.IsSingleIP()) {
			return nil, errCorrupt
		}
		out = append(out, apikey.AllowedIP{Block: block, Single: single})
		v = v[2+width:]
	}
	return out, nil
}

// uvarint reads a uvarint and refuses spellings longer than needed.
func uvarint(v string) (uint64, int) {
	n, size := binary.Uvarint([]byte(v[:min(len(v), binary.MaxVarintLen64)]))
	if size > 1 && v[size-1] == 0 {
		return 0, -1
	}
	return n, size
}
