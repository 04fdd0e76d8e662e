// Package jobs is the work that goes on behind the requests.
//
// A job is one pass over what is due, safe to repeat and safe to miss: what a
// pass did not get to is due at the next. Run only calls passes at their times;
// everything worth testing is in a pass.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// A Job is one kind of background work.
type Job struct {
	Name  string
	Every time.Duration                                  // from the end of a pass to the next
	Pass  func(ctx context.Context, now time.Time) error // does what is due at now
}

// A Runner runs jobs.
type Runner struct {
	jobs    []Job
	logger  *slog.Logger
	metrics metrics
}

// NewRunner returns a runner that is not yet running.
func NewRunner(logger *slog.Logger, jobs ...Job) *Runner {
	return &Runner{jobs, logger, newMetrics(jobs)}
}

// Run runs each job until ctx is done, and returns once their passes have
// ended. A pass that fails or panics is logged and tried again at its next
// time: background work does not take requests down with it.
//
// A job logs one failure a minute at the most: on a full disk passes fail every
// second, for as long as it lasts.
func (r *Runner) Run(ctx context.Context) {
	done := make(chan struct{})
	for _, j := range r.jobs {
		go func() {
			defer func() { done <- struct{}{} }()
			var told complaint
			for {
				r.pass(ctx, &j, &told)
				select {
				case <-ctx.Done():
					return
				case <-time.After(j.Every):
				}
			}
		}()
	}
	for range r.jobs {
		<-done
	}
}

// pass runs a job's pass and records how it went. An error that comes of ctx
// being done is none.
func (r *Runner) pass(ctx context.Context, j *Job, told *complaint) {
	began := time.Now()
	err := errPanicked
	defer func() {
		if recover() != nil {
			// The value of the panic may quote a key; where it happened does not.
			r.logger.Error("background job panicked", "job", j.Name, "stack", string(debug.Stack()))
		}
		r.metrics.record(j.Name, began, time.Now(), err)
	}()
	if err = j.Pass(ctx, began); err != nil && ctx.Err() != nil {
		err = nil
	}
	if err != nil && told.due(began) {
		r.logger.Error("background job failed", "job", j.Name, "error", err, "failures_not_logged", told.withheld)
		told.withheld = 0
	}
}

// A complaint is when a job's failure was logged last, and how many were not
// since.
type complaint struct {
	at       time.Time
	withheld int
}

func (c *complaint) due(now time.Time) bool {
	if !c.at.IsZero() && now.Sub(c.at) < time.Minute {
		c.withheld++
		return false
	}
	c.at = now
	return true
}

// errPanicked stands for the error of a pass that did not come to return one.
var errPanicked = errors.New("panicked")

// guarded makes an error of a panic, for goroutines that a pass begins: Run looks after
// its own alone.
func guarded(do func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("%w at %s", errPanicked, debug.Stack())
		}
	}()
	return do()
}
