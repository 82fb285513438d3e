"""The Identity service (CSI spec, Identity Service RPC)."""

from google.protobuf.wrappers_pb2 import BoolValue

from moorage.spec import csi_pb2 as csi
from moorage_devplugin.plugin import Plugin


class IdentityService:
    """Serves the plugin's name and capabilities."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def get_plugin_info(self, _: csi.GetPluginInfoRequest) -> csi.GetPluginInfoResponse:
        profile = self._plugin.profile
        return csi.GetPluginInfoResponse(name=profile.name, vendor_version=profile.version)

    def get_plugin_capabilities(self, _: csi.GetPluginCapabilitiesRequest) -> csi.GetPluginCapabilitiesResponse:
        service = csi.PluginCapability.Service
        types = [service.CONTROLLER_SERVICE, service.VOLUME_ACCESSIBILITY_CONSTRAINTS]
        if self._plugin.profile.groups:
            types.append(service.GROUP_CONTROLLER_SERVICE)
        expansion = csi.PluginCapability.VolumeExpansion
        return csi.GetPluginCapabilitiesResponse(
            capabilities=[
                *(csi.PluginCapability(service=service(type=one)) for one in types),
                csi.PluginCapability(volume_expansion=expansion(type=expansion.ONLINE)),
            ]
        )

    def probe(self, _: csi.ProbeRequest) -> csi.ProbeResponse:
        """CSI spec, Probe. Ready while the root is there."""
        return csi.ProbeResponse(ready=BoolValue(value=self._plugin.vault.root.is_dir()))
