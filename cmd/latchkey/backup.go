package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"latchkey/keystore"
)

// What the environment may say in place of flags. A token is never an argument:
// every user of the machine can read those.
const (
	serverEnv     = "LATCHKEY_SERVER"
	tokenEnv      = "LATCHKEY_TOKEN"
	defaultServer = "http://127.0.0.1:8081"
)

// An adminClient calls a running gateway's admin plane.
type adminClient struct {
	server, tokenFile string
}

func (a *adminClient) flags(c *cobra.Command) {
	c.Flags().StringVar(&a.server, "server", "", "the admin plane's `URL`; without it $"+serverEnv+", or "+defaultServer)
	c.Flags().StringVar(&a.tokenFile, "token-file", "", "the `file` with an operator's token; without it $"+tokenEnv)
}

func (a *adminClient) token() (string, error) {
	token := os.Getenv(tokenEnv)
	if a.tokenFile != "" {
		text, err := os.ReadFile(a.tokenFile)
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		token = string(text)
	}
	if token = strings.TrimSpace(token); token == "" {
		return "", errors.New("an operator's token is required: name its file with --token-file, or set " + tokenEnv)
	}
	return token, nil
}

// post makes a call and returns the body of its answer, if that is 200.
func (a *adminClient) post(ctx context.Context, path string) (io.ReadCloser, error) {
	server := a.server
	if server == "" {
		server = os.Getenv(serverEnv)
	}
	if server == "" {
		server = defaultServer
	}
	token, err := a.token()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", strings.TrimSuffix(server, "/")+path, nil)
	if err != nil {
		return nil, fmt.Errorf("--server: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	// The token goes to the server that was named and to no other.
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: time.Minute}}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the admin plane: %w", err)
	}
	if res.StatusCode == 200 {
		return res.Body, nil
	}
	defer res.Body.Close()
	var problem struct{ Detail string }
	text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // what is missing, the status says
	if json.Unmarshal(text, &problem) != nil || problem.Detail == "" {
		problem.Detail = string(bytes.TrimSpace(text))
	}
	return nil, fmt.Errorf("%s answered %s: %s", server, res.Status, problem.Detail)
}

func backupCommand() *cobra.Command {
	var client adminClient
	var dir, archive string
	c := &cobra.Command{
		Use:   "backup {--to DIR | --archive FILE}",
		Short: "Back up a running gateway's key store",
		Long: "Copy the key store of a running gateway, through its admin plane, to a new directory or into\n" +
			"one tar archive. Only an operator with the role admin and the tenant * may. The backup holds what\n" +
			"the store holds, the key of what is sealed in it too: keep it as secret as the store.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if (dir == "") == (archive == "") {
				return usageError{errors.New("say where the backup goes with either --to or --archive")}
			}
			target, write := dir, func(r io.Reader) (keystore.Manifest, error) { return unpack(r, dir) }
			if archive != "" {
				target, write = archive, func(r io.Reader) (keystore.Manifest, error) { return store(r, archive) }
			}
			if _, err := os.Lstat(target); err == nil {
				return fmt.Errorf("%s is there already; name a new one", target)
			}
			body, err := client.post(c.Context(), "/backup")
			if err != nil {
				return err
			}
			defer body.Close()
			m, err := write(body)
			if err != nil {
				return fmt.Errorf("%s: nothing was kept: %w", target, err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: made at %s; keys: %d, revision: %d\n", target, m.MadeAt.Format(time.RFC3339), m.Keys, m.Revision)
			return err
		},
	}
	client.flags(c)
	c.Flags().StringVar(&dir, "to", "", "the new `directory` for the backup")
	c.Flags().StringVar(&archive, "archive", "", "the new `file` for the backup as one tar archive")
	return c
}

// unpack makes the directory of an archive, whole or not at all.
func unpack(r io.Reader, dir string) (m keystore.Manifest, err error) {
	err = placeDir(dir, func(temp string) error {
		m, err = keystore.ReadArchive(r, temp)
		return err
	})
	return m, err
}

// placeDir has a directory, for this user alone, made beside the path and then
// puts it there, where nothing or an empty directory is.
func placeDir(path string, fill func(temp string) error) error {
	path = filepath.Clean(path)
	temp, err := os.MkdirTemp(filepath.Dir(path), filepath.Base(path)+".new-")
	if err != nil {
		return err
	}
	if err = fill(temp); err == nil {
		// Not os.Rename, which refuses to replace an empty directory.
		if err = syscall.Rename(temp, path); err != nil {
			err = fmt.Errorf("put %s in its place: %w", path, err)
		}
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return syncDir(filepath.Dir(path))
}

// store writes an archive to a file, whole or not at all.
func store(r io.Reader, path string) (m keystore.Manifest, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-") // with mode 0600
	if err != nil {
		return m, err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	whole := io.TeeReader(r, f)
	if m, err = keystore.ReadArchive(whole, ""); err != nil {
		return m, err
	}
	if _, err := io.Copy(io.Discard, whole); err != nil { // what pads the archive
		return m, err
	}
	if err := f.Sync(); err != nil {
		return m, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return m, err
	}
	return m, syncDir(filepath.Dir(path))
}

// syncDir makes a rename in the directory last.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
