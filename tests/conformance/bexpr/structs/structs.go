// Package structs declares what the filters of the table are applied to: a field of each kind that a volume has.
package structs

import "time"

type Mode string

type Topology struct{ Segments map[string]string }

type MountOptions struct {
	FSType     string
	MountFlags []string
}

type TopologyRequest struct {
	Required  []*Topology
	Preferred []*Topology
}

type Volume struct {
	ID           string
	Name         string
	AccessMode   Mode
	Capacity     int64
	Healthy      int
	CreateIndex  uint64
	Schedulable  bool
	Parameters   map[string]string
	Context      map[string]string
	Flags        []string
	NoFlags      []string
	Modes        []Mode
	Numbers      []int64
	Switches     []bool
	Lists        [][]string
	Topologies   []*Topology
	MountOptions *MountOptions
	NoOptions    *MountOptions
	Inline       MountOptions
	Request      *TopologyRequest
	ReadAllocs   map[string]*MountOptions
	Maps         map[string]map[string]string
	Counts       map[string]int64
	When         time.Time
	WhenOrNever  *time.Time
}
