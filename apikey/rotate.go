package apikey

import (
	"time"
	"unicode/utf8"
)

// Rotate returns the change that replaces the key by one with the given
// credentials. The new key inherits everything but its ID, secret and history;
// the old one goes on admitting for the grace, and a grace of zero ends it at
// once. A scheduled rotation that had begun is void. A key that is not active, or was rotated before, gives ErrNotLive.
func (k Key) Rotate(c Credentials, grace time.Duration, now time.Time) (Change, error) {
	now = Instant(now)
	if k.State(now) != StateActive || !k.Rotation.ReplacedBy.IsZero() {
		return Change{}, ErrNotLive
	}
	heir := k
	heir.ID, heir.Digest, heir.Hint = c.ID, DigestOf([]byte(c.Secret)), HintOf(c.Secret)
	heir.Name = rotatedName(k.Name)
	heir.CreatedAt, heir.UpdatedAt = now, now
	if k.Rotation.EveryDays > 0 {
		heir.Rotation.NextAt = now.AddDate(0, 0, k.Rotation.EveryDays)
	}
	heir.Rotation.Pending = ID{}
	k.Rotation.ReplacedBy = heir.ID
	k.Rotation.Pending = ID{}
	k.Rotation.GraceEndsAt = Instant(now.Add(grace))
	k.Rotation.NextAt = time.Time{}
	k.UpdatedAt = now
	if grace <= 0 {
		k.EndedAt = now // for good, whatever the clock does next
	}
	if err := heir.Validate(); err != nil {
		return Change{}, err
	}
	return Change{Action: ActionRotated, Keys: []Key{k, heir}}, nil
}

// rotatedSuffix marks the name of a replacement, as Strait does.
const rotatedSuffix = " (rotated)"

// rotatedName marks a name as that of a replacement. A name that would grow
// too long is cut at a rune, so that a key can be rotated for ever.
func rotatedName(name string) string {
	for utf8.RuneCountInString(name)+len(rotatedSuffix) > MaxName {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	return name + rotatedSuffix
}
