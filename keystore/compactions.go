package keystore

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// compactions is Pebble's own scheduler, which here starts none before the database is
// open. Pebble, when it opens, writes what it replayed from the log as a table, may see in
// that a reason for a compaction, and then waits for its end: half a second at 100,000
// keys, in which the gateway could have answered.
//
// Pebble's scheduler looks ten times a second whether more compactions are allowed than
// run, and the one that does is not exported. This one looks when it has reason to.
type compactions struct {
	*pebble.ConcurrencyLimitScheduler
	open atomic.Bool
}

func newCompactions() *compactions {
	return &compactions{ConcurrencyLimitScheduler: pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()}
}

// Register is called when the database begins to open.
func (c *compactions) Register(goroutines int, db pebble.DBForCompaction) {
	c.ConcurrencyLimitScheduler.Register(goroutines, heldBack{db, &c.open})
}

// opened starts the compactions that were held back.
func (c *compactions) opened() {
	c.open.Store(true)
	c.grant()
}

// UpdateGetAllowedWithoutPermission is called after each flush, with locks that a grant
// takes.
func (c *compactions) UpdateGetAllowedWithoutPermission() { go c.grant() }

// grant takes the permission for a compaction, if there is one, and gives it back, upon
// which what waits for one gets it.
func (c *compactions) grant() {
	if allowed, permission := c.TrySchedule(); allowed {
		permission.Done()
	}
}

// heldBack is a database that allows no compaction until it is open.
type heldBack struct {
	pebble.DBForCompaction
	open *atomic.Bool
}

func (h heldBack) GetAllowedWithoutPermission() int {
	if !h.open.Load() {
		return 0
	}
	return h.DBForCompaction.GetAllowedWithoutPermission()
}
