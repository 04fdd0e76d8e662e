//go:build !linux

package proxy

import "time"

const watcherIsBlind = true

const glance = 25 * time.Millisecond
