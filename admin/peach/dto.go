package peach

import (
	"time"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// key is a key on the wire. Every field is there, null where it is unset.
type key struct {
	ID                                 string   `json:"id"`
	CompanyID                          string   `json:"companyId"`
	UserID                             *string  `json:"userId"`
	Key                                string   `json:"key"`
	WhitelistedIPs                     []string `json:"whitelistedIPs"`
	Status                             string   `json:"status"`
	Description                        *string  `json:"description"`
	CreatedAt                          string   `json:"createdAt"`
	UpdatedAt                          string   `json:"updatedAt"`
	DeletedAt                          *string  `json:"deletedAt"`
	APIVersion                         *string  `json:"apiVersion"`
	APIVersionUpdatedAt                *string  `json:"apiVersionUpdatedAt"`
	APIVersionDowngradeNotAllowedAfter *string  `json:"apiVersionDowngradeNotAllowedAfter"`
}

// page is the envelope of a list.
type page struct {
	Status      int     `json:"status"` // repeats the HTTP status
	Total       int     `json:"total"`  // of all keys that match
	Count       int     `json:"count"`  // of the keys in data
	NextURL     *string `json:"nextUrl"`
	PreviousURL *string `json:"previousUrl"`
	Data        []key   `json:"data"`
}

const (
	active   = "active"
	inactive = "inactive"
)

// fromKey shows a key with its secret masked.
func fromKey(k *apikey.Key, now time.Time) key {
	out := key{
		ID:                                 k.ID.String(),
		CompanyID:                          k.Tenant,
		UserID:                             orNull(k.Subject),
		Key:                                k.Hint.String(),
		WhitelistedIPs:                     k.AllowedIPs.Strings(),
		Status:                             inactive,
		Description:                        orNull(k.Name),
		CreatedAt:                          stamp(k.CreatedAt),
		UpdatedAt:                          stamp(k.UpdatedAt),
		DeletedAt:                          stampOrNull(k.RevokedAt),
		APIVersion:                         orNull(k.Pin.Version),
		APIVersionUpdatedAt:                stampOrNull(k.Pin.ChangedAt),
		APIVersionDowngradeNotAllowedAfter: stampOrNull(k.Pin.NoDowngradeAfter),
	}
	if k.State(now) == apikey.StateActive {
		out.Status = active
	}
	return out
}

// newKey is the body of a creation.
type newKey struct {
	userID         string
	whitelistedIPs apikey.Allowlist
	description    string
}

func readNewKey(c *wire.Call) (newKey, error) {
	b, err := c.ReadBody(false)
	if err != nil {
		return newKey{}, err
	}
	n := newKey{
		userID:         b.Require("userId").Text("userId", 1, apikey.MaxSubject, false).Value,
		whitelistedIPs: b.IPs("whitelistedIPs", true).Value,
		description:    b.Text("description", 1, maxDescription, true).Value,
	}
	return n, b.Err()
}

// readEdit reads the body of an update: what is absent stays, what is null is
// cleared.
func readEdit(c *wire.Call) (apikey.Edit, error) {
	b, err := c.ReadBody(false)
	if err != nil {
		return apikey.Edit{}, err
	}
	e := apikey.Edit{
		APIVersion: b.Require("apiVersion").Text("apiVersion", 1, len(time.DateOnly), false).Pointer(),
		Name:       b.Text("description", 1, maxDescription, true).Pointer(),
		AllowedIPs: b.IPs("whitelistedIPs", true).Pointer(),
	}
	return e, b.Err()
}

const maxDescription = 200

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000-07:00") }

func stampOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := stamp(t)
	return &s
}
