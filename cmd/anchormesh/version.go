package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	etcdversion "go.etcd.io/etcd/api/v3/version"
)

// Set by the linker (see Makefile).
var (
	version = "0.1.0-dev"
	commit  = "unknown"
)

func newVersion() *cobra.Command {
	out := outputTable
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print what this program is",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version string `json:"version"`
				Commit  string `json:"commit"`
				EtcdAPI string `json:"etcd_api"`
				Go      string `json:"go"`
				OS      string `json:"os"`
			}{version, commit, etcdversion.Version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			if out == outputJSON {
				return printJSON(cmd.OutOrStdout(), v)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "anchormesh %s (commit %s, etcd API %s, %s, %s)\n", v.Version, v.Commit, v.EtcdAPI, v.Go, v.OS)
			return err
		},
	}
	bindOutput(cmd, &out)
	return cmd
}
