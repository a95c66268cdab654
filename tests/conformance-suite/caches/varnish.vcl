# Varnish with its built-in VCL, and nothing added. Three of its parameters are set on the command
# line: default_ttl=0, default_grace=0 (it would reuse for two minutes, and ten seconds longer, what
# nobody allowed) and default_keep=3600 (it would not validate what is stale). With its own defaults
# 70 required and 32 optimal tests count as passed, not 105 and 40.
vcl 4.1;

backend default {
    .host = "127.0.0.1";
    .port = "@ORIGIN@";
}
