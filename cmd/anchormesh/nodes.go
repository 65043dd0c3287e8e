package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/spf13/cobra"
)

func newNodes() *cobra.Command {
	var a ask.Asker
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes of the mesh",
		Long: `List the nodes of the mesh as the asked node sees them. Gossip brings this
view together: it may be seconds old, and no decision about data depends on
it. A load of 1 is one segment at its threshold; replicas, leaderships and
load are what the node said of itself lately.`,
		Example: "  anchormesh nodes --endpoints 10.0.0.1:2379,10.0.0.2:2379\n  anchormesh nodes -o json",
	}
	a.Bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var reply *meshpb.NodesReply
		err := a.Mesh(cmd.Context(), func(ctx context.Context, c meshpb.MeshClient) (err error) {
			reply, err = c.Nodes(ctx, &meshpb.NodesRequest{})
			return err
		})
		if err != nil {
			return err
		}
		return printNodes(cmd, a.Out, reply)
	}
	return cmd
}

// nodeView is a node in an answer.
type nodeView struct {
	ID         string    `json:"id"`
	MemberID   string    `json:"member_id"` // hex, as etcdctl shows it
	Name       string    `json:"name"`
	Zone       string    `json:"zone"`
	Version    string    `json:"version"`
	State      string    `json:"state"`
	Since      time.Time `json:"since"`
	ClientURLs []string  `json:"client_urls"`
	PeerAddrs  []string  `json:"peer_addrs"`
	Self       bool      `json:"self"`
	// Standing is what the node said of itself lately.
	Standing *standingView `json:"standing,omitempty"`
}

type standingView struct {
	Draining bool    `json:"draining"`
	Replicas uint64  `json:"replicas"`
	Leaders  uint64  `json:"leaders"`
	Room     uint64  `json:"room"`
	Load     float64 `json:"load"`
}

func viewNode(n *meshpb.NodeInfo) nodeView {
	v := nodeView{
		ID: n.GetId(), MemberID: hexID(n.GetMemberId()), Name: n.GetName(), Zone: n.GetZone(),
		Version: n.GetVersion(), State: stateText(n.GetState()), Since: time.UnixMilli(n.GetSinceUnixMs()).UTC(),
		ClientURLs: ask.NonNil(n.GetClientUrls()), PeerAddrs: ask.NonNil(n.GetPeerAddrs()), Self: n.GetSelf(),
	}
	if s := n.GetStanding(); s != nil {
		v.Standing = &standingView{Draining: s.GetLeaving(), Replicas: s.GetReplicas(), Leaders: s.GetLeaders(), Room: s.GetRoom(), Load: s.GetLoad()}
	}
	return v
}

func printNodes(cmd *cobra.Command, out ask.Output, reply *meshpb.NodesReply) error {
	views := make([]nodeView, 0, len(reply.GetNodes()))
	for _, n := range reply.GetNodes() {
		views = append(views, viewNode(n))
	}
	if !out.ForPeople() {
		return ask.PrintJSON(cmd.OutOrStdout(), struct {
			Mesh  string     `json:"mesh"`
			Nodes []nodeView `json:"nodes"`
		}{meshText(reply.GetMesh()), views})
	}
	var rows [][]string
	for _, v := range views {
		name := v.Name
		if v.Self {
			name += " *"
		}
		state, replicas, leads, load := v.State, "", "", ""
		if s := v.Standing; s != nil {
			replicas, leads, load = strconv.FormatUint(s.Replicas, 10), strconv.FormatUint(s.Leaders, 10), fmt.Sprintf("%.2f", s.Load)
			if s.Draining {
				state += ", draining"
			}
		}
		rows = append(rows, []string{name, state, v.Zone, v.Version, replicas, leads, load, strings.Join(v.ClientURLs, ","), v.ID})
	}
	return ask.PrintTable(cmd.OutOrStdout(), []string{"NAME", "STATE", "ZONE", "VERSION", "REPLICAS", "LEADS", "LOAD", "CLIENT URLS", "ID"}, rows)
}

func stateText(s meshpb.NodeState) string {
	switch s {
	case meshpb.NodeState_NODE_STATE_ALIVE:
		return "alive"
	case meshpb.NodeState_NODE_STATE_LEFT:
		return "left"
	case meshpb.NodeState_NODE_STATE_DEAD:
		return "dead"
	}
	return "unknown"
}

// hexID is the form etcdctl shows member and cluster IDs in.
func hexID(id uint64) string { return anchormesh.MeshID(id).String() }

// meshText is empty for a node that belongs to no mesh yet.
func meshText(id uint64) string {
	if id == 0 {
		return ""
	}
	return hexID(id)
}
