package strait

import (
	"flag"
	"testing"
	"time"

	"latchkey/internal/dialecttest"
)

var _ = flag.Bool("update", false, "write the answers of the golden exchanges")

func TestGoldenExchanges(t *testing.T) { dialecttest.Run(t, New(Options{Grace: time.Hour})) }
