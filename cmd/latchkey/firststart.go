package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"latchkey/config"
)

// firstOperator is the name of the operator that is made where none is configured.
const firstOperator = "first"

// withOperator returns the admin plane's settings with the operator that is made
// where there would be none. Its token is in a file beside the store, so that a
// restart knows it again.
func (a *App) withOperator(c config.Admin) (config.Admin, error) {
	file := a.storePath() + ".operator-token"
	if len(c.Operators) > 0 || c.OIDC.Enabled() {
		if _, err := os.Lstat(file); err == nil {
			a.logger.Warn("operators are configured, so the one that was made is none any more; delete its token", "operator", firstOperator, "token_file", file)
		}
		return c, nil
	}
	// The configuration was checked for this, but sockets can be passed on to us.
	at := a.listeners[len(a.cfg.Proxy.Listen)].Addr()
	if tcp, ok := at.(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return c, fmt.Errorf("admin.operators: there is no operator, and the admin plane at %s can be reached from outside; "+
			"add one with a token_sha256, which is made by: latchkey operators hash", at)
	}
	info, err := os.Lstat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		token := newToken()
		err = writeWhole(file, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, token)
			return err
		})
		if err == nil {
			a.logger.Warn("no operator is configured, so one was made; its token is in a file, which is for this user alone",
				"operator", firstOperator, "token_file", file)
		}
	case err == nil && !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file; move it away, and the token is made anew", file)
	case err == nil:
		if problem := config.NotPrivate(file, info); problem != "" {
			err = fmt.Errorf("%s %s", file, problem)
			break
		}
		a.logger.Info("no operator is configured; the one that was made is in force", "operator", firstOperator, "token_file", file)
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w; let this user (%d) make files in %s, or configure admin.operators", err, os.Getuid(), filepath.Dir(file))
	}
	if err != nil {
		return c, fmt.Errorf("make an operator: %w", err)
	}
	c.Operators = []config.Operator{{Name: firstOperator, Role: config.RoleAdmin, Tenant: "*", TokenFile: file}}
	return c, nil
}
