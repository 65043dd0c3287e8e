package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
)

func newStatus() *cobra.Command {
	var a ask.Asker
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the given nodes are",
		Long: `Show how each of the given nodes is. The command fails (status 1) if a node does
not answer or is not ready, after showing all others.`,
		Example: "  anchormesh status --endpoints 10.0.0.1:2379,10.0.0.2:2379\n" +
			"  anchormesh status --endpoint /ip4/10.0.0.1/tcp/2380/p2p/12D3KooW... --mesh-key-file mesh.key",
	}
	a.Bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var views []statusView
		var problems []error
		for _, endpoint := range a.Endpoints {
			err := a.One(cmd.Context(), endpoint, func(ctx context.Context, conn grpc.ClientConnInterface) error {
				reply, err := meshpb.NewMeshClient(conn).Status(ctx, &meshpb.StatusRequest{})
				if err == nil {
					views = append(views, viewStatus(endpoint, reply))
				}
				return err
			})
			if err != nil {
				problems = append(problems, err)
			}
		}
		for _, v := range views {
			if !v.Ready {
				problems = append(problems, fmt.Errorf("%s is not ready: %s", v.Endpoint, strings.Join(v.Problems, "; ")))
			}
		}
		return errors.Join(append(problems, printStatus(cmd, a.Out, views))...)
	}
	return cmd
}

// statusView is a node's state in an answer.
type statusView struct {
	Endpoint   string    `json:"endpoint"`
	Mesh       string    `json:"mesh"`
	Node       nodeView  `json:"node"`
	Started    time.Time `json:"started"`
	Ready      bool      `json:"ready"`
	Problems   []string  `json:"problems"`
	Segments   uint32    `json:"segments"`
	Leading    uint32    `json:"leading"`
	LogBytes   int64     `json:"log_bytes"`
	StoreBytes int64     `json:"store_bytes"`
	InUse      int64     `json:"store_in_use_bytes"`
	QuotaBytes int64     `json:"quota_bytes"`
	Watches    uint64    `json:"watches"`
	Leases     uint64    `json:"leases"`
}

func viewStatus(endpoint string, s *meshpb.StatusReply) statusView {
	return statusView{
		Endpoint: endpoint, Mesh: meshText(s.GetMesh()), Node: viewNode(s.GetNode()),
		Started: time.UnixMilli(s.GetStartedUnixMs()).UTC(), Ready: s.GetReady(), Problems: ask.NonNil(s.GetProblems()),
		Segments: s.GetSegments(), Leading: s.GetLeading(), LogBytes: s.GetLogBytes(), StoreBytes: s.GetStoreBytes(),
		InUse: s.GetStoreInUseBytes(), QuotaBytes: s.GetQuotaBytes(), Watches: s.GetWatches(), Leases: s.GetLeases(),
	}
}

func printStatus(cmd *cobra.Command, out ask.Output, views []statusView) error {
	if !out.ForPeople() {
		if views == nil {
			views = []statusView{}
		}
		return ask.PrintJSON(cmd.OutOrStdout(), views)
	}
	if len(views) == 0 {
		return nil
	}
	var rows [][]string
	for _, v := range views {
		ready := "yes"
		if !v.Ready {
			ready = "NO"
		}
		rows = append(rows, []string{
			v.Endpoint, v.Node.Name, ready, v.Mesh, v.Node.Version, v.Started.Format(time.RFC3339),
			fmt.Sprintf("%d (leads %d)", v.Segments, v.Leading),
			ask.Bytes(v.LogBytes), ask.Bytes(v.StoreBytes),
			strconv.FormatUint(v.Watches, 10), strconv.FormatUint(v.Leases, 10),
		})
	}
	return ask.PrintTable(cmd.OutOrStdout(), []string{"ENDPOINT", "NAME", "READY", "MESH", "VERSION", "STARTED", "SEGMENTS", "LOG", "STORE", "WATCHES", "LEASES"}, rows)
}
