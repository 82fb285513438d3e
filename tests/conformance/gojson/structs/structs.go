// Package structs declares, for the real encoding/json, the shapes that chalicelib/wire/shapes.py declares for ours. The
// package is called what Nomad's error texts call theirs; names and types come from recordings and from the public module
// github.com/hashicorp/nomad/api.
package structs

import (
	"encoding/json"
	"time"
)

type WriteRequest struct {
	Region    string
	Namespace string
	SecretID  string
}

type CSIVolumeAccessMode string
type CSIVolumeAttachmentMode string
type CSISecrets map[string]string

type CSITopology struct{ Segments map[string]string }

type CSITopologyRequest struct {
	Required  []*CSITopology
	Preferred []*CSITopology
}

type CSIMountOptions struct {
	FSType     string
	MountFlags []string
}

type CSIVolumeCapability struct {
	AttachmentMode CSIVolumeAttachmentMode
	AccessMode     CSIVolumeAccessMode
}

type Allocation struct{}
type AllocListStub struct{}

type CSIVolume struct {
	ID                    string
	Name                  string
	ExternalID            string
	Namespace             string
	RequestedTopologies   *CSITopologyRequest
	Topologies            []*CSITopology
	AccessMode            CSIVolumeAccessMode
	AttachmentMode        CSIVolumeAttachmentMode
	MountOptions          *CSIMountOptions
	Secrets               CSISecrets
	Parameters            map[string]string
	Context               map[string]string
	Capacity              int64
	RequestedCapacityMin  int64
	RequestedCapacityMax  int64
	RequestedCapabilities []*CSIVolumeCapability
	CloneID               string
	SnapshotID            string
	ReadAllocs            map[string]*Allocation
	WriteAllocs           map[string]*Allocation
	Allocations           []*AllocListStub
	Schedulable           bool
	PluginID              string
	Provider              string
	ProviderVersion       string
	ControllerRequired    bool
	ControllersHealthy    int
	ControllersExpected   int
	NodesHealthy          int
	NodesExpected         int
	ResourceExhausted     time.Time
	CreateIndex           uint64
	ModifyIndex           uint64
	CreateTime            int64
	ModifyTime            int64
}

type CSIVolumeRegisterRequest struct {
	Volumes        []*CSIVolume
	PolicyOverride bool
	WriteRequest
}

type CSISnapshot struct {
	ID                     string
	ExternalSourceVolumeID string
	SizeBytes              int64
	CreateTime             int64
	IsReady                bool
	SourceVolumeID         string
	PluginID               string
	Name                   string
	Secrets                CSISecrets
	Parameters             map[string]string
}

type CSISnapshotCreateRequest struct {
	Snapshots []*CSISnapshot
	WriteRequest
}

// Odds holds kinds that no request of the API has yet, and neighbours whose names differ by case only.
type Odds struct {
	Small   int32
	When    *time.Time
	Wait    Duration
	Inner   CSIMountOptions
	Numbers []int64
	Lists   [][]string
	Flags   map[string]bool
	Kept    string
	KEPT    string
}

// Duration is how Nomad's requests take one: a text, or nanoseconds.
type Duration int64

func (d *Duration) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	if data[0] != '"' {
		// A plain type of that name, so that the texts are those of encoding/json for a time.Duration.
		return json.Unmarshal(data, (*time.Duration)(d))
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil || text == "" {
		*d = 0
		return err
	}
	parsed, err := time.ParseDuration(text)
	*d = Duration(parsed)
	return err
}
