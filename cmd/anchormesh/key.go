package main

import (
	"fmt"

	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/spf13/cobra"
)

func newKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make the secret that nodes of a mesh share",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "new",
		Short: "Print a fresh mesh key",
		Long: `Print a fresh mesh key. Who has it can join the mesh, read its gossip and reach
its nodes; who has not gets nothing. Keep it as you keep a password, and give
every node the same with --mesh-key-file.`,
		Example: `  (umask 077; anchormesh key new > mesh.key)`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), meshkey.Generate().Encode())
			return err
		},
	})
	return cmd
}
