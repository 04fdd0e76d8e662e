package keystore

import (
	"fmt"
	"log/slog"
	"path"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// A logger passes Pebble's complaints on, at most one a second: a full disk
// makes the same one thousands of times.
type logger struct {
	slog    *slog.Logger
	onFatal func(error)
	last    atomic.Int64 // the second in which the last line was logged
	dropped *atomic.Uint64
}

// Infof drops Pebble's narration of flushes and compactions: the metrics count
// them.
func (l *logger) Infof(string, ...any) {}

// Errorf logs a complaint.
func (l *logger) Errorf(format string, args ...any) {
	if !l.allow() {
		l.dropped.Add(1)
		return
	}
	l.slog.Error("key store: "+fmt.Sprintf(format, args...), "lines_dropped_so_far", l.dropped.Load())
}

// allow reports whether there was no line yet in this second.
func (l *logger) allow() bool {
	now := time.Now().Unix()
	last := l.last.Load()
	return last != now && l.last.CompareAndSwap(last, now)
}

// Fatalf ends the process: Pebble calls it when a write to the log failed
// half-way, and whatever is acknowledged after that could be lost.
func (l *logger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	l.slog.Error("key store cannot go on; the process ends so that nothing is acknowledged in doubt", "error", err)
	l.onFatal(err)
	select {} // Pebble relies on Fatalf not returning
}

// eventCounts counts what Pebble reports, for the metrics.
type eventCounts struct {
	backgroundErrors, writeStalls, slowDisk, damaged, dropped atomic.Uint64
}

func newEventCounts() *eventCounts { return new(eventCounts) }

func (c *eventCounts) listener(l *logger) *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			c.backgroundErrors.Add(1)
			l.Errorf("background work: %v", err)
		},
		// Pebble would end the process. But a damaged block is a fault of the keys
		// in it alone: their look-ups fail, and nothing is admitted by them.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			c.damaged.Add(1)
			l.Errorf("%s/%s is damaged: look-ups of the keys in it fail; run latchkey verify, then restore a backup", databaseAt, path.Base(info.Path))
		},
		WriteStallBegin: func(pebble.WriteStallBeginInfo) { c.writeStalls.Add(1) },
		DiskSlow:        func(pebble.DiskSlowInfo) { c.slowDisk.Add(1) },
	}
}
