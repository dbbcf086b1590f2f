-- Health of Cloudmesh's kinds for Argo CD; reads conditions only, so that one script serves every kind.
local health = {status = "Progressing", message = "Waiting for the operator"}

local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    conditions[condition.type] = condition
  end
end
local ready = conditions["Ready"]

local function is_true(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end

local function say(status, condition)
  health.status = status
  health.message = condition.message
  if health.message == nil or health.message == "" then
    health.message = condition.reason
  end
  return health
end

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "Being deleted"
  return health
end
if is_true("Paused") then
  return say("Suspended", conditions["Paused"])
end
local annotations = obj.metadata.annotations
if annotations ~= nil and annotations["cloudmesh.org/paused"] == "true" then
  return {status = "Suspended", message = "Paused by annotation cloudmesh.org/paused"}
end
if ready == nil then
  return health
end
-- What is told about an older spec says nothing about this one.
local seen = obj.status.observedGeneration
if seen == nil or (obj.metadata.generation ~= nil and seen ~= obj.metadata.generation) then
  health.message = "Waiting for the operator to see the newest spec"
  return health
end
if is_true("Stalled") then
  return say("Degraded", conditions["Stalled"])
end
if ready.status == "False" and ready.reason == "AwaitingApproval" then
  return say("Suspended", ready)
end
if is_true("Reconciling") then
  return say("Progressing", conditions["Reconciling"])
end
if ready.status == "True" then
  if ready.reason == "Suspended" then
    return say("Suspended", ready)
  end
  return say("Healthy", ready)
end
return say("Progressing", ready)
