// Package pulse takes the load of the segments on this node at intervals and
// lets package entropy judge it. The data path only touches the meters.
//
// What a judgement says is shown by `anchormesh segments` and logged when it
// changes; nothing acts on it here.
package pulse
