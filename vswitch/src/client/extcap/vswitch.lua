-- What vswitchd says of each frame, as fields: vswitch.drop == "no-session", vswitch.vlan == 10, vswitch.nat, ...
-- `vsctl extcap install` wrote this file. It reads the packets' comments, which are words of key=value.

local vswitch = Proto("vswitch", "vswitch")

local kinds = {
  id = ProtoField.uint64("vswitch.id", "Frame number"),
  at = ProtoField.string("vswitch.at", "Seen at"),
  ["in"] = ProtoField.string("vswitch.in", "Came in by"),
  out = ProtoField.string("vswitch.out", "Leaves by"),
  vlan = ProtoField.uint16("vswitch.vlan", "VLAN"),
  vni = ProtoField.uint32("vswitch.vni", "VXLAN network"),
  nat = ProtoField.string("vswitch.nat", "NAT"),
  fate = ProtoField.string("vswitch.fate", "Fate"),
  drop = ProtoField.string("vswitch.drop", "Drop reason"),
}
local numbers = { vlan = tonumber, vni = tonumber, id = function(text) return UInt64.new(tonumber(text)) end }
local lists = { out = true, nat = true }

local fields = {}
for _, field in pairs(kinds) do
  fields[#fields + 1] = field
end
vswitch.fields = fields

local comments = Field.new("frame.comment")

function vswitch.dissector(buffer, pinfo, tree)
  local branch
  for _, comment in ipairs({ comments() }) do
    for key, value in string.gmatch(tostring(comment.value), "(%w+)=(%S+)") do
      local field = kinds[key]
      if field then
        branch = branch or tree:add(vswitch)
        for item in string.gmatch(value, lists[key] and "[^,]+" or "%S+") do
          local number = numbers[key]
          if not number then
            branch:add(field, item)
          elseif tonumber(item) then
            branch:add(field, number(item))
          end
        end
      end
    end
  end
end

register_postdissector(vswitch)
