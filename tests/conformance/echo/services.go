package main

import (
	"context"
	"maps"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Numbers that a float64 cannot hold, so that whoever goes by JSON numbers is found out.
const (
	large = int64(1)<<53 + 1
	taken = int64(1700000000)
)

// known has the numbers of an enum without zero, in order.
func known(names map[int32]string) []int32 {
	return slices.Sorted(maps.Keys(names))[1:]
}

// worn is a VolumeStatus with the condition that plugins of CSI 1.3 to 1.12 tell in field 2; 1.13 took its name away.
func worn() *csi.ListVolumesResponse_VolumeStatus {
	condition := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
	condition = protowire.AppendString(protowire.AppendTag(condition, 2, protowire.BytesType), "worn")
	status := &csi.ListVolumesResponse_VolumeStatus{PublishedNodeIds: []string{"n1", "n2"}}
	status.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), condition))
	return status
}

type identity struct {
	csi.UnimplementedIdentityServer
}

func (identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "echo.csi.moorage", VendorVersion: "1.13", Manifest: map[string]string{"a": "b"}}, nil
}

func (identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

func (identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	var all []*csi.PluginCapability
	for _, number := range known(csi.PluginCapability_Service_Type_name) {
		service := &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_Type(number)}
		all = append(all, &csi.PluginCapability{Type: &csi.PluginCapability_Service_{Service: service}})
	}
	for _, number := range known(csi.PluginCapability_VolumeExpansion_Type_name) {
		expansion := &csi.PluginCapability_VolumeExpansion{Type: csi.PluginCapability_VolumeExpansion_Type(number)}
		all = append(all, &csi.PluginCapability{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: expansion}})
	}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: all}, nil
}

type controller struct {
	csi.UnimplementedControllerServer
}

func (controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	var all []*csi.ControllerServiceCapability
	for _, number := range known(csi.ControllerServiceCapability_RPC_Type_name) {
		rpc := &csi.ControllerServiceCapability_RPC{Type: csi.ControllerServiceCapability_RPC_Type(number)}
		all = append(all, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: rpc}})
	}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: all}, nil
}

func (controller) CreateVolume(_ context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:           "id of " + request.GetName(),
		CapacityBytes:      large,
		VolumeContext:      map[string]string{"answered": "ünï", "empty": ""},
		ContentSource:      request.GetVolumeContentSource(),
		AccessibleTopology: request.GetAccessibilityRequirements().GetRequisite(),
	}}, nil
}

func (controller) DeleteVolume(context.Context, *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	return &csi.DeleteVolumeResponse{}, nil
}

func (controller) ControllerPublishVolume(_ context.Context, request *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	return &csi.ControllerPublishVolumeResponse{PublishContext: map[string]string{"device": request.GetNodeId() + "/dev"}}, nil
}

func (controller) ControllerUnpublishVolume(context.Context, *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

func (controller) ValidateVolumeCapabilities(_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext:      request.GetVolumeContext(),
		VolumeCapabilities: request.GetVolumeCapabilities(),
		Parameters:         request.GetParameters(),
	}}, nil
}

func (controller) ControllerExpandVolume(context.Context, *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: large, NodeExpansionRequired: true}, nil
}

func (controller) ListVolumes(_ context.Context, request *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	return &csi.ListVolumesResponse{
		Entries: []*csi.ListVolumesResponse_Entry{{
			Volume: &csi.Volume{
				VolumeId:      "listed",
				CapacityBytes: large,
				VolumeContext: map[string]string{"a": "b"},
				ContentSource: &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
					Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: "parent"},
				}},
			},
			Status: worn(),
		}, {
			Volume: &csi.Volume{
				VolumeId: "restored",
				ContentSource: &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
					Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: "taken"},
				}},
			},
		}},
		NextToken: request.GetStartingToken() + "+",
	}, nil
}

func snapshot(id, source string) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId:     id,
		SourceVolumeId: source,
		SizeBytes:      large,
		CreationTime:   &timestamppb.Timestamp{Seconds: taken, Nanos: 999999999},
		ReadyToUse:     true,
	}
}

func (controller) CreateSnapshot(_ context.Context, request *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	return &csi.CreateSnapshotResponse{Snapshot: snapshot("id of "+request.GetName(), request.GetSourceVolumeId())}, nil
}

func (controller) DeleteSnapshot(context.Context, *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	return &csi.DeleteSnapshotResponse{}, nil
}

func (controller) ListSnapshots(_ context.Context, request *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	return &csi.ListSnapshotsResponse{
		Entries:   []*csi.ListSnapshotsResponse_Entry{{Snapshot: snapshot("s", "v")}},
		NextToken: request.GetStartingToken() + "+",
	}, nil
}

type node struct {
	csi.UnimplementedNodeServer
}

func (node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	var all []*csi.NodeServiceCapability
	for _, number := range known(csi.NodeServiceCapability_RPC_Type_name) {
		rpc := &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_Type(number)}
		all = append(all, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: rpc}})
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: all}, nil
}

func (node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId:             "echo-node",
		MaxVolumesPerNode:  large,
		AccessibleTopology: &csi.Topology{Segments: map[string]string{"zone": "z1", "rack": "r1"}},
	}, nil
}

func (node) NodeStageVolume(context.Context, *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	return &csi.NodeStageVolumeResponse{}, nil
}

func (node) NodePublishVolume(context.Context, *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	return &csi.NodePublishVolumeResponse{}, nil
}

func (node) NodeUnpublishVolume(context.Context, *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (node) NodeUnstageVolume(context.Context, *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, nil
}
