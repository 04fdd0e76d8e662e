package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey/apikey"
)

// An Outbox keeps scheduled rotations under way.
type Outbox interface {
	Deliveries(now time.Time, limit int) ([]apikey.Delivery, error)
	Postpone(apikey.Delivery) error
	WebhookSecret(apikey.ID) (apikey.Secret, error)
}

// Rotated reads and changes the keys that deliveries are about.
type Rotated interface {
	ByID(tenant string, id apikey.ID) (apikey.Key, error)
	Changer
}

// A Poster brings a message to a webhook. It returns nil only if the webhook has
// taken it. Its errors hold nothing of the message.
type Poster interface {
	Post(ctx context.Context, url string, m Message) error
}

// A Message is what is posted to a webhook.
type Message struct {
	ID     string // the same whenever it is tried again
	Event  string
	At     time.Time
	Body   []byte
	Secret apikey.Secret // signs it
}

// eventRotated is the event of a scheduled rotation.
const eventRotated = "api_key.auto_rotated"

// A Courier delivers the replacements of scheduled rotations.
type Courier struct {
	outbox  Outbox
	keys    Rotated
	poster  Poster
	logger  *slog.Logger
	results *prometheus.CounterVec
}

// NewCourier returns a courier.
func NewCourier(outbox Outbox, keys Rotated, poster Poster, logger *slog.Logger) *Courier {
	c := &Courier{outbox: outbox, keys: keys, poster: poster, logger: logger,
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "latchkey_webhook_deliveries_total",
			Help: "Tries to deliver the replacement of a scheduled rotation: taken (and then in force), failed (and tried again), abandoned (after 24 hours; the old key stays), superseded (the key was revoked or rotated meanwhile).",
		}, []string{"result"})}
	for _, result := range []string{taken, failed, abandoned, superseded} {
		c.results.WithLabelValues(result)
	}
	return c
}

// What became of a try.
const (
	taken      = "taken"
	failed     = "failed"
	abandoned  = "abandoned"
	superseded = "superseded"
)

// Metrics returns the courier's counter.
func (c *Courier) Metrics() prometheus.Collector { return c.results }

const (
	deliveryBatch     = 128 // deliveries in a pass
	deliveriesAtATime = 16
	deliveriesAHost   = 8 // in a pass
)

// Deliver returns the job that tries deliveries that are due, once each. One slow
// webhook holds up no other: of a host's deliveries a pass tries a few and puts off
// the rest.
func (c *Courier) Deliver() Job {
	return Job{Name: "deliver", Every: time.Second, Pass: func(ctx context.Context, now time.Time) error {
		due, err := c.outbox.Deliveries(now, deliveryBatch)
		if err != nil {
			err = fmt.Errorf("find deliveries: %w", err)
		}
		errs := make([]error, len(due), len(due)+1)
		places := make(chan struct{}, deliveriesAtATime)
		hosts := map[string]int{}
		var all sync.WaitGroup
		for i, d := range due {
			k, host, err := c.replaced(d)
			if err != nil {
				errs[i] = errors.Join(err, c.postpone(d, now))
				continue
			}
			if hosts[host]++; hosts[host] > deliveriesAHost {
				d.NextAt = apikey.Instant(now.Add(firstBackoff))
				errs[i] = c.outbox.Postpone(d)
				continue
			}
			places <- struct{}{}
			all.Go(func() {
				defer func() { <-places }()
				if err := guarded(func() error { return c.deliver(ctx, k, d, now) }); err != nil {
					// Not at once again: the webhook would get it every second.
					errs[i] = fmt.Errorf("deliver the replacement of key %s: %w", d.Key, err)
				}
			})
		}
		all.Wait()
		return errors.Join(append(errs, err)...)
	}}
}

// replaced returns the key that a delivery is about, and its webhook's host.
func (c *Courier) replaced(d apikey.Delivery) (apikey.Key, string, error) {
	k, err := c.keys.ByID(apikey.AnyTenant, d.Key)
	if err != nil {
		return k, "", err
	}
	to, err := url.Parse(k.Rotation.WebhookURL)
	if err != nil {
		return k, "", errors.New("the webhook's URL is malformed")
	}
	return k, to.Hostname(), nil
}

// deliver tries a delivery once. A webhook that does not take it is no error of
// the job, but noted. Once it has taken it, it is not asked again.
func (c *Courier) deliver(ctx context.Context, k apikey.Key, d apikey.Delivery, now time.Time) error {
	if k.Rotation.Pending != d.Heir.ID || k.State(now) != apikey.StateActive {
		c.results.WithLabelValues(superseded).Inc() // the store drops it with the key's change
		return nil
	}
	if !d.Taken {
		m, err := c.message(&k, d, now)
		if err != nil {
			return errors.Join(err, c.failed(ctx, d, now, err))
		}
		if err := c.poster.Post(ctx, k.Rotation.WebhookURL, m); err != nil {
			return c.failed(ctx, d, now, err)
		}
		d.Taken = true
	}
	err := change(c.keys, "deliver", d.Key, now, func(k apikey.Key) (apikey.Change, error) {
		return k.CompleteRotation(d.Heir, now)
	})
	if errors.Is(err, apikey.ErrNotLive) {
		c.results.WithLabelValues(superseded).Inc()
		c.logger.Warn("the webhook took a replacement of a key that was revoked or rotated meanwhile; the replacement admits nobody",
			"key_id", d.Key.String(), "new_key_id", d.Heir.ID.String())
		return nil
	}
	if err != nil {
		return errors.Join(err, c.postpone(d, now))
	}
	c.results.WithLabelValues(taken).Inc()
	return nil
}

// failed notes that a delivery did not come about, mostly since its webhook did not take it:
// it is tried again later, or abandoned once its time is over.
func (c *Courier) failed(ctx context.Context, d apikey.Delivery, now time.Time, cause error) error {
	if ctx.Err() != nil {
		return nil // the gateway is stopping; it is due again after the start
	}
	attrs := []any{"key_id", d.Key.String(), "attempts", d.Attempts + 1, "error", cause}
	if now.Sub(d.BegunAt) >= apikey.DeliveryPatience {
		err := change(c.keys, "deliver", d.Key, now, func(k apikey.Key) (apikey.Change, error) {
			return k.AbandonRotation(d.Heir.ID, now)
		})
		if err != nil && !errors.Is(err, apikey.ErrNotLive) {
			return err
		}
		c.results.WithLabelValues(abandoned).Inc()
		c.logger.Error("a scheduled rotation was abandoned: the new key could not be delivered for a day; the old key stays", attrs...)
		return nil
	}
	c.results.WithLabelValues(failed).Inc()
	c.logger.Warn("the new key of a scheduled rotation could not be delivered; it is tried again", attrs...)
	return c.postpone(d, now)
}

// postpone puts a delivery off, but not beyond when it would be abandoned.
func (c *Courier) postpone(d apikey.Delivery, now time.Time) error {
	d.Attempts++
	d.NextAt = apikey.Instant(now.Add(backoff(d.Attempts, rand.Float64())))
	if last := d.BegunAt.Add(apikey.DeliveryPatience); !d.Taken && d.NextAt.After(last) && last.After(now) {
		d.NextAt = last
	}
	return c.outbox.Postpone(d)
}

const (
	firstBackoff = 10 * time.Second
	mostBackoff  = time.Hour
)

// backoff returns how long to wait after a number of failures in a row: twice as
// long each time, and a fifth more or less by chance (0 to 1), so that keys whose
// webhook failed together do not come back together.
func backoff(failures int, chance float64) time.Duration {
	wait := mostBackoff
	if failures < 10 {
		wait = min(wait, firstBackoff<<(failures-1))
	}
	return time.Duration(float64(wait) * (0.8 + 0.4*chance))
}

// message makes the message about a delivery.
func (c *Courier) message(k *apikey.Key, d apikey.Delivery, now time.Time) (Message, error) {
	secret, err := c.outbox.WebhookSecret(k.ID)
	if err != nil {
		return Message{}, err
	}
	body, err := json.Marshal(struct {
		Event          string `json:"event"`
		OldKeyID       string `json:"old_key_id"`
		NewKeyID       string `json:"new_key_id"`
		NewKey         string `json:"new_key"`
		NewKeyPrefix   string `json:"new_key_prefix"`
		ProjectID      string `json:"project_id"`
		RotatedAt      string `json:"rotated_at"`
		GraceExpiresAt string `json:"grace_expires_at"`
	}{eventRotated, k.ID.String(), d.Heir.ID.String(), d.Heir.Secret, apikey.HintOf(d.Heir.Secret).Head, k.Tenant,
		apikey.Instant(now).Format(time.RFC3339Nano), apikey.Instant(now.Add(apikey.ScheduledGrace)).Format(time.RFC3339Nano)})
	if err != nil {
		return Message{}, fmt.Errorf("encode message: %w", err)
	}
	return Message{ID: "msg_" + d.Heir.ID.String(), Event: eventRotated, At: now, Body: body, Secret: secret}, nil
}
