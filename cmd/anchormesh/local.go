package main

import (
	"fmt"
	"runtime"

	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/spf13/cobra"
	etcdversion "go.etcd.io/etcd/api/v3/version"
)

// Set by the linker (see Makefile).
var (
	version = "0.1.0-dev"
	commit  = "unknown"
)

func newVersion() *cobra.Command {
	var out ask.Output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print what this program is",
		Args:  ask.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version string `json:"version"`
				Commit  string `json:"commit"`
				EtcdAPI string `json:"etcd_api"`
				Go      string `json:"go"`
				OS      string `json:"os"`
			}{version, commit, etcdversion.Version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			if !out.ForPeople() {
				return ask.PrintJSON(cmd.OutOrStdout(), v)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "anchormesh %s (commit %s, etcd API %s, %s, %s)\n", v.Version, v.Commit, v.EtcdAPI, v.Go, v.OS)
			return err
		},
	}
	out.Bind(cmd)
	return cmd
}

func newKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make the secret that nodes of a mesh share",
		Args:  ask.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "new",
		Short: "Print a fresh mesh key",
		Long: `Print a fresh mesh key. Who has it can join the mesh, read its gossip and reach
its nodes; who has not gets nothing. Keep it as you keep a password, and give
every node the same with --mesh-key-file.`,
		Example: `  (umask 077; anchormesh key new > mesh.key)`,
		Args:    ask.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), meshkey.Generate().Encode())
			return err
		},
	})
	return cmd
}
