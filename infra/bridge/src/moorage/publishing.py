"""Publish the worker's certificate to the control plane's meta table, with its key sealed under KMS."""

import datetime as dt
from pathlib import Path
from typing import Any, Final

from moorage.certificates import REFUSED_FILE, CertificateTrouble, check_pair, read_refused

KEY_CONTEXT: Final = {"moorage": "worker-key"}


def publish_worker(out: Path, *, stage: str, region: str | None) -> str:
    """Write the worker certificate in `out` into the meta table of `stage`, and return its serial.

    If `out` has a list of refused serials, it becomes the control plane's, which tells it to every bridge. Without one,
    the control plane's list stays: a renewal from another folder must not admit a refused certificate again.

    Raises CertificateTrouble, which says what is missing: files, the AWS packages, or AWS permissions.
    Needs kms:GenerateDataKey on alias/moorage-<stage> and dynamodb:UpdateItem on moorage-<stage>-meta.
    """
    try:
        import aws_encryption_sdk
        import boto3
        from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as exc:
        raise CertificateTrouble(
            "publishing needs the AWS packages: in Moorage's checkout, pip install './infra/bridge[aws]'"
        ) from exc
    ca, certificate, key = (_read(out / name) for name in ("ca.pem", "worker.pem", "worker-key.pem"))
    issued = check_pair(ca, certificate, key)
    if "worker" not in issued.roles:
        raise CertificateTrouble(
            f"{out / 'worker.pem'} is no worker's certificate: issue one with moorage certs worker"
        )
    refused = sorted(read_refused(out)) if (out / REFUSED_FILE).exists() else None
    if issued.serial in (refused or ()):
        raise CertificateTrouble(
            f"{out / 'worker.pem'} has serial {issued.serial}, which {out / REFUSED_FILE} refuses: issue another"
        )
    session = boto3.session.Session(region_name=region)
    if session.region_name is None:
        raise CertificateTrouble("no AWS region is set: use --region or AWS_REGION")
    try:
        values: dict[str, Any] = {
            "ca_pem": {"S": ca.decode()},
            "certificate_pem": {"S": certificate.decode()},
            "sealed_key": {"B": _seal(aws_encryption_sdk, session, f"alias/moorage-{stage}", key)},
            "serial": {"S": issued.serial},
            "not_after": {"N": str(int(issued.ends.astimezone(dt.UTC).timestamp()))},
        }
        if refused is not None:
            values["refused"] = {"L": [{"S": serial} for serial in refused]}
        session.client("dynamodb").update_item(
            TableName=f"moorage-{stage}-meta",
            Key={"pk": {"S": "worker"}, "sk": {"S": "tls"}},
            UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in values),
            ExpressionAttributeNames={f"#{name}": name for name in values},
            ExpressionAttributeValues={f":{name}": value for name, value in values.items()},
        )
    except (AWSEncryptionSDKClientError, BotoCoreError, ClientError) as exc:
        raise CertificateTrouble(f"AWS refused to store the worker's certificate of stage {stage}: {exc}") from exc
    return issued.serial


def _seal(sdk, session, alias: str, key: bytes) -> bytes:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Encrypt the key as the control plane decrypts it: an envelope with key commitment, not signed."""
    client = sdk.EncryptionSDKClient(commitment_policy=sdk.identifiers.CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    sealed, _ = client.encrypt(
        source=key,
        key_provider=sdk.StrictAwsKmsMasterKeyProvider(key_ids=[alias], botocore_session=session._session),  # noqa: SLF001
        encryption_context=KEY_CONTEXT,
        algorithm=sdk.identifiers.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    )
    return bytes(sealed)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise CertificateTrouble(f"{path} cannot be read: {exc.strerror}") from exc
