package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"
)

// defaultHeadBytes is the longest response head unless the options say otherwise.
const defaultHeadBytes = 64 << 10

// Options configures New and Upstream.Update. Targets must be given; all else
// has a usable zero value.
type Options struct {
	Targets     []Target
	Balance     Balance       // how a target is chosen; zero means PowerOfTwo
	SlowStart   time.Duration // during which a target that enters or comes back gets less than its share; zero means none
	Connections Connections
	HeadBytes   int // the longest response head; zero means 64 KiB
	TLS         TLS // for targets whose URL begins with https
	Ejection    Ejection
	Health      Health
	ResolveEach time.Duration // how often Resolve looks up each host name; zero means at every pass

	Now     func() time.Time                                                      // nil means time.Now
	Connect func(ctx context.Context, network, address string) (net.Conn, error)  // makes connections below TLS; nil means TCP
	Lookup  func(ctx context.Context, network, host string) ([]netip.Addr, error) // resolves names; nil means net.DefaultResolver
}

// A Target is a place that serves requests.
type Target struct {
	URL    string // http or https, host, and port unless it is the scheme's own; nothing more
	Weight int    // its share of the requests relative to the others'; zero means 1
}

// Connections limits the connections to each address of a target.
type Connections struct {
	Max            int           // in use and idle; zero means 512
	Idle           int           // kept idle; zero means 64, -1 none
	IdleTimeout    time.Duration // how long one is kept idle; zero means 30 s
	ConnectTimeout time.Duration // until one is ready, TLS included; zero means 2 s
	Wait           time.Duration // how long a request waits for one when all are in use; zero means not at all
}

// An endpointSpec is one Target, parsed.
type endpointSpec struct {
	Target
	secure     bool
	host, port string
	authority  string // host and port as in the URL, for Host
}

// Validate reports every problem, nil if there is none.
func (o Options) Validate() error {
	_, err := o.complete()
	return err
}

// complete fills in the defaults and returns the targets parsed.
func (o *Options) complete() ([]endpointSpec, error) {
	setDefault(&o.Connections.Max, 512)
	setDefault(&o.Connections.Idle, 64)
	setDefault(&o.Connections.IdleTimeout, 30*time.Second)
	setDefault(&o.Connections.ConnectTimeout, 2*time.Second)
	setDefault(&o.HeadBytes, defaultHeadBytes)
	o.Ejection.complete()
	o.Health.complete()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Connect == nil {
		o.Connect = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	if o.Lookup == nil {
		o.Lookup = net.DefaultResolver.LookupNetIP
	}
	problems := []error{o.Balance.validate(), o.Ejection.validate(), o.Health.validate()}
	if _, err := o.TLS.config(""); err != nil {
		problems = append(problems, fmt.Errorf("TLS: %w", err))
	}
	for _, d := range []struct {
		name string
		n    int64
	}{
		{"Connections.Max", int64(o.Connections.Max)}, {"Connections.Idle", int64(o.Connections.Idle) + 1},
		{"Connections.IdleTimeout", int64(o.Connections.IdleTimeout)}, {"Connections.ConnectTimeout", int64(o.Connections.ConnectTimeout)},
		{"Connections.Wait", int64(o.Connections.Wait)}, {"HeadBytes", int64(o.HeadBytes)},
		{"SlowStart", int64(o.SlowStart)}, {"ResolveEach", int64(o.ResolveEach)},
	} {
		if d.n < 0 {
			problems = append(problems, fmt.Errorf("%s is negative", d.name))
		}
	}
	if len(o.Targets) == 0 {
		problems = append(problems, errors.New("no targets are given"))
	}
	var specs []endpointSpec
	seen := map[string]bool{}
	for i, t := range o.Targets {
		spec, err := t.parse()
		if err == nil && seen[t.URL] {
			err = errors.New("is there twice")
		}
		if seen[t.URL] = true; err != nil {
			problems = append(problems, fmt.Errorf("target %d: %w", i+1, err))
		}
		specs = append(specs, spec)
	}
	return specs, errors.Join(problems...)
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// parse takes the URL apart.
func (t Target) parse() (endpointSpec, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		return endpointSpec{}, err
	}
	spec := endpointSpec{Target: t, secure: u.Scheme == "https", host: u.Hostname(), port: u.Port(), authority: u.Host}
	setDefault(&spec.Weight, 1)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return spec, errors.New("URL is neither http nor https")
	case spec.host == "":
		return spec, errors.New("URL has no host")
	case u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return spec, errors.New("URL has more than a scheme, a host and a port")
	case spec.Weight < 0 || spec.Weight > maxWeight:
		return spec, fmt.Errorf("weight is not between 1 and %d", maxWeight)
	}
	if spec.port == "" {
		spec.port = "80"
		if spec.secure {
			spec.port = "443"
		}
	}
	return spec, nil
}
