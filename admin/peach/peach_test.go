package peach

import (
	"flag"
	"testing"
	"time"

	"latchkey/internal/dialecttest"
)

var _ = flag.Bool("update", false, "write the answers of the golden exchanges")

func options() Options {
	return Options{Prefix: "/api", APIVersions: []string{"2023-11-29", "2024-05-22"}, DowngradeWindow: 72 * time.Hour}
}

func TestGoldenExchanges(t *testing.T) { dialecttest.Run(t, New(options())) }
