package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// changes are keys that are issued and revoked while requests go on.
type changes struct {
	Admin string // host:port
	Token string
	Rate  int // keys issued, and as many revoked, a second; 0 is none
}

// changed is what became of them.
type changed struct {
	Done     int64
	Failures int64
	Seconds  float64
}

// A changing is changes under way.
type changing struct {
	cancel   context.CancelFunc
	all      sync.WaitGroup
	done     atomic.Int64
	failures atomic.Int64
	since    time.Time
}

// start begins to issue keys, and revokes each at once. What is asked for comes at a
// constant rate, on as many connections as that takes.
func (c changes) start(ctx context.Context) *changing {
	out := &changing{since: time.Now()}
	ctx, out.cancel = context.WithCancel(ctx)
	if c.Rate == 0 {
		return out
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	out.all.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(c.Rate))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			out.all.Go(func() {
				if err := c.issueAndRevoke(ctx, client); err != nil && ctx.Err() == nil {
					out.failures.Add(1)
				} else if err == nil {
					out.done.Add(2)
				}
			})
		}
	})
	return out
}

// reset forgets what has been so far.
func (c *changing) reset() {
	c.done.Store(0)
	c.failures.Store(0)
	c.since = time.Now()
}

func (c *changing) stop() changed {
	out := changed{Done: c.done.Load(), Failures: c.failures.Load(), Seconds: time.Since(c.since).Seconds()}
	c.cancel()
	c.all.Wait()
	return out
}

func (c changes) issueAndRevoke(ctx context.Context, client *http.Client) error {
	var made struct {
		ID string `json:"id"`
	}
	answer, err := c.call(ctx, client, "POST", "/v1/api-keys", `{"project_id": "acme", "name": "bench"}`, http.StatusCreated)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, &made); err != nil || made.ID == "" {
		return errors.Join(errors.New("an answer without an ID"), err)
	}
	_, err = c.call(ctx, client, "DELETE", "/v1/api-keys/"+made.ID, "", http.StatusNoContent)
	return err
}

func (c changes) call(ctx context.Context, client *http.Client, method, target, body string, want int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.Admin+target, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != want {
		err = fmt.Errorf("%s %s: status %d", method, target, res.StatusCode)
	}
	return answer, err
}
