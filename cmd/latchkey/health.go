package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"latchkey/config"
)

func healthCommand() *cobra.Command {
	var path, target string
	c := &cobra.Command{
		Use:   "health (--config FILE | --url URL)",
		Short: "Ask a running gateway whether it takes traffic",
		Long: "Ask a running gateway on this machine whether it takes traffic, and exit with 0 if it does, else with 1.\n" +
			"It is asked for /readyz at admin.metrics_listen of the configuration, or at admin.listen if that is empty\n" +
			"and asks for no client's certificate.\n" +
			"Images have no curl; this is for their health checks. With --config a file with a mistake fails the check,\n" +
			"though the gateway goes on with what it read before; --url reads no file.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if target == "" {
				if path == "" {
					return usageError{errors.New("name the configuration file with --config, or what to ask with --url")}
				}
				cfg, err := loadConfig(path)
				if err != nil {
					return err
				}
				if target, err = healthURL(cfg.Admin); err != nil {
					return err
				}
			} else if u, err := url.Parse(target); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
				return usageError{errors.New("--url is not a URL such as http://127.0.0.1:8081/readyz")}
			}
			if err := askHealth(c.Context(), target); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "ok")
			return err
		},
	}
	configFlag(c, &path, "the configuration `file` of the gateway")
	c.Flags().StringVar(&target, "url", "", "the `URL` to ask, in place of what the configuration says")
	return c
}

// healthURL returns where the gateway of this configuration says on this machine
// whether it is ready.
func healthURL(a config.Admin) (string, error) {
	field, address, scheme := "admin.metrics_listen", a.MetricsListen, "http"
	if address == "" {
		field, address = "admin.listen", a.Listen
		if a.TLS.Enabled() {
			scheme = "https"
		}
		if a.TLS.ClientCAFile != "" {
			return "", errors.New("admin.listen asks for a client's certificate (admin.tls.client_ca_file), and this has none; set admin.metrics_listen")
		}
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	if port == "0" {
		return "", fmt.Errorf("%s: %s is a new port at each start; name what to ask with --url", field, address)
	}
	// All interfaces are among them the loopback one.
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip == netip.IPv4Unspecified() {
		host = "127.0.0.1"
	} else if err == nil && ip == netip.IPv6Unspecified() {
		host = "::1"
	}
	return scheme + "://" + net.JoinHostPort(host, port) + "/readyz", nil
}

// healthTimeout is shorter than the 30 seconds that orchestrators give a check.
const healthTimeout = 3 * time.Second

// askHealth returns nil if the URL answers 200.
//
// A certificate is not looked at: it is for the names that operators use, not
// for a loopback address, and nothing is sent that another could not see.
func askHealth(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	// No proxy of the environment either: the gateway is on this machine.
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("the gateway does not answer: %w; is it running, and is this its configuration?", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(io.LimitReader(res.Body, 200)) // without it the status has to do
		return fmt.Errorf("%s answers %s: %s", target, res.Status, strings.Join(strings.Fields(string(reason)), " "))
	}
	return nil
}
