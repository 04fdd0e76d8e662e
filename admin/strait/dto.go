package strait

import (
	"time"

	"latchkey/admin/wire"
	"latchkey/apikey"
)

// key is a key on the wire. What is unset is left out, but for the scopes.
type key struct {
	ID                 string   `json:"id"`
	ProjectID          string   `json:"project_id"`
	Name               string   `json:"name"`
	Key                string   `json:"key,omitempty"` // in the answer that creates it only
	KeyPrefix          string   `json:"key_prefix"`
	Scopes             []string `json:"scopes"`
	ExpiresAt          string   `json:"expires_at,omitempty"`
	LastUsedAt         string   `json:"last_used_at,omitempty"`
	CreatedAt          string   `json:"created_at"`
	RevokedAt          string   `json:"revoked_at,omitempty"`
	ReplacedByKeyID    string   `json:"replaced_by_key_id,omitempty"`
	GraceExpiresAt     string   `json:"grace_expires_at,omitempty"`
	EnvironmentID      string   `json:"environment_id,omitempty"`
	RotationInterval   int      `json:"rotation_interval_days,omitempty"`
	NextRotationAt     string   `json:"next_rotation_at,omitempty"`
	RotationWebhookURL string   `json:"rotation_webhook_url,omitempty"`

	// Like the key itself, in the answer that creates it only.
	RotationWebhookSecret string `json:"rotation_webhook_secret,omitempty"`
}

func fromKey(k *apikey.Key, last apikey.Use) key {
	out := key{
		ID:                 k.ID.String(),
		ProjectID:          k.Tenant,
		Name:               k.Name,
		KeyPrefix:          k.Hint.Head,
		Scopes:             scopes(k),
		ExpiresAt:          stamp(k.ExpiresAt),
		LastUsedAt:         stamp(last.At),
		CreatedAt:          stamp(k.CreatedAt),
		RevokedAt:          stamp(k.RevokedAt),
		GraceExpiresAt:     stamp(k.Rotation.GraceEndsAt),
		EnvironmentID:      k.Environment,
		RotationInterval:   k.Rotation.EveryDays,
		NextRotationAt:     stamp(k.Rotation.NextAt),
		RotationWebhookURL: k.Rotation.WebhookURL,
	}
	if !k.Rotation.ReplacedBy.IsZero() {
		out.ReplacedByKeyID = k.Rotation.ReplacedBy.String()
	}
	return out
}

// rotation is the answer to a rotation. Every field is there.
type rotation struct {
	OldKeyID       string   `json:"old_key_id"`
	NewKeyID       string   `json:"new_key_id"`
	ProjectID      string   `json:"project_id"`
	Name           string   `json:"name"`
	Key            string   `json:"key"`
	KeyPrefix      string   `json:"key_prefix"`
	Scopes         []string `json:"scopes"`
	ExpiresAt      *string  `json:"expires_at"`
	CreatedAt      string   `json:"created_at"`
	GraceExpiresAt string   `json:"grace_expires_at"`
}

func fromRotation(made wire.Made) rotation {
	old, heir := made.Replaced, made.Key
	out := rotation{
		OldKeyID:       old.ID.String(),
		NewKeyID:       heir.ID.String(),
		ProjectID:      heir.Tenant,
		Name:           heir.Name,
		Key:            made.Secret,
		KeyPrefix:      heir.Hint.Head,
		Scopes:         scopes(heir),
		CreatedAt:      stamp(heir.CreatedAt),
		GraceExpiresAt: stamp(old.Rotation.GraceEndsAt),
	}
	if expires := stamp(heir.ExpiresAt); expires != "" {
		out.ExpiresAt = &expires
	}
	return out
}

const maxDays = 36500

// readSpec reads the body of a creation.
func (d dialect) readSpec(c *wire.Call) (apikey.Spec, error) {
	b, err := c.ReadBody(false)
	if err != nil {
		return apikey.Spec{}, err
	}
	project := b.Text("project_id", 1, apikey.MaxTenant, false)
	spec := apikey.Spec{
		Name:        b.Require("name").Text("name", 1, apikey.MaxName, false).Value,
		Scopes:      b.Texts("scopes", false).Value,
		Environment: b.Text("environment_id", 1, apikey.MaxEnvironment, false).Value,
	}
	days, at := b.Int("expires_in_days", 1, maxDays), b.Time("expires_at")
	switch {
	case days.Set && at.Set:
		b.Refuse("expires_at", "and expires_in_days exclude each other; give one")
	case days.Set:
		spec.ExpiresAt = c.Now.AddDate(0, 0, days.Value)
	case at.Set:
		spec.ExpiresAt = at.Value
	}
	d.readSchedule(b, &spec)
	if err := b.Err(); err != nil {
		return apikey.Spec{}, err
	}
	spec.Tenant, err = c.Tenant("project_id", project.Value)
	return spec, err
}

// readSchedule reads how a key is rotated. Interval and webhook come together: a
// rotated secret that can reach nobody is an outage.
func (d dialect) readSchedule(b *wire.Body, spec *apikey.Spec) {
	every := b.Int("rotation_interval_days", 1, maxDays)
	webhook := b.Text("rotation_webhook_url", 1, wire.MaxBody, false) // its length is checked below
	spec.RotateEveryDays, spec.WebhookURL = every.Value, webhook.Value
	switch {
	case every.Set && !webhook.Set:
		b.Refuse("rotation_webhook_url", "is required with rotation_interval_days")
	case webhook.Set && !every.Set:
		b.Refuse("rotation_interval_days", "is required with rotation_webhook_url")
	}
	if problem := apikey.CheckWebhookURL(webhook.Value, d.AllowPrivateWebhooks); webhook.Value != "" && problem != "" {
		b.Refuse("rotation_webhook_url", problem)
	}
}

func scopes(k *apikey.Key) []string {
	if k.Scopes == nil {
		return []string{}
	}
	return k.Scopes
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
