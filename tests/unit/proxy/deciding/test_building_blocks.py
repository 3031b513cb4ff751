"""Methods of Dapr's gRPC API and the building blocks that they belong to."""

import pytest

from proxy.deciding.building_blocks import block_of, block_of_method, missing, missing_method

BLOCKS = {
    "state": "GetState GetBulkState SaveState QueryStateAlpha1 DeleteState DeleteBulkState ExecuteStateTransaction",
    "publish": "PublishEvent BulkPublishEvent BulkPublishEventAlpha1",
    "subscribe": "SubscribeTopicEventsAlpha1",
    "bindings": "InvokeBinding",
    "secrets": "GetSecret GetBulkSecret",
    "actors": (
        "RegisterActorTimer UnregisterActorTimer RegisterActorReminder UnregisterActorReminder UnregisterActorRemindersByType "
        "ListActorReminders ListActorTimers GetActorState GetActorReminder GetActorTimer ExecuteActorStateTransaction InvokeActor "
        "SubscribeActorEventsAlpha1"
    ),
    "configuration": (
        "GetConfiguration GetConfigurationAlpha1 SubscribeConfiguration SubscribeConfigurationAlpha1 UnsubscribeConfiguration "
        "UnsubscribeConfigurationAlpha1"
    ),
    "lock": "TryLockAlpha1",
    "unlock": "UnlockAlpha1",
    "crypto": (
        "EncryptAlpha1 DecryptAlpha1 SubtleGetKeyAlpha1 SubtleEncryptAlpha1 SubtleDecryptAlpha1 SubtleWrapKeyAlpha1 "
        "SubtleUnwrapKeyAlpha1 SubtleSignAlpha1 SubtleVerifyAlpha1"
    ),
    "workflows": (
        "StartWorkflowAlpha1 GetWorkflowAlpha1 PurgeWorkflowAlpha1 TerminateWorkflowAlpha1 PauseWorkflowAlpha1 ResumeWorkflowAlpha1 "
        "RaiseEventWorkflowAlpha1 StartWorkflowBeta1 GetWorkflowBeta1 PurgeWorkflowBeta1 TerminateWorkflowBeta1 PauseWorkflowBeta1 "
        "ResumeWorkflowBeta1 RaiseEventWorkflowBeta1"
    ),
    "jobs": (
        "ScheduleJob ScheduleJobAlpha1 GetJob GetJobAlpha1 DeleteJob DeleteJobAlpha1 DeleteJobsByPrefix DeleteJobsByPrefixAlpha1 "
        "ListJobs ListJobsAlpha1"
    ),
    "conversation": "ConverseAlpha1 ConverseAlpha2",
    "search": (
        "CreateIndexAlpha1 GetIndexAlpha1 ListIndexesAlpha1 DeleteIndexAlpha1 IndexDocumentsAlpha1 GetDocumentsAlpha1 "
        "DeleteDocumentsAlpha1 SearchAlpha1"
    ),
    "vectors": (
        "CreateCollectionAlpha1 GetCollectionAlpha1 ListCollectionsAlpha1 DeleteCollectionAlpha1 UpsertVectorsAlpha1 "
        "DeleteVectorsAlpha1 GetVectorsAlpha1 QueryVectorsAlpha1 BatchQueryVectorsAlpha1"
    ),
    "binaryfiles": "SetBinaryFileAlpha1 GetBinaryFileAlpha1 DeleteBinaryFileAlpha1",
}


@pytest.mark.parametrize(
    ("method", "block"), [(method, block) for block, methods in BLOCKS.items() for method in methods.split()]
)
def test_method_belongs_to_its_block(method: str, block: str) -> None:
    assert block_of_method(method) == block


@pytest.mark.parametrize(
    "method", ["InvokeService", "GetMetadata", "SetMetadata", "Shutdown", "", "Frobnicate"]
)
def test_method_of_no_block(method: str) -> None:
    assert block_of_method(method) is None


@pytest.mark.parametrize("block", BLOCKS)
def test_missing_block_is_named_in_words(block: str) -> None:
    text, _ = missing_method(block)
    assert "service invocation only" in text
    assert len(text.partition("building block: ")[2].partition(";")[0]) > 3


@pytest.mark.parametrize("block", BLOCKS)
def test_code_is_that_of_http(block: str) -> None:
    _, code = missing_method(block)
    assert code == (missing(block)[1] if block_of(f"/v1.0/{block}/x") else "ERR_API_UNIMPLEMENTED")
