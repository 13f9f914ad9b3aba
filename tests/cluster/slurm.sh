#!/usr/bin/env bash
# A SLURM of one node on this machine, all of it under one folder: nothing of the system is changed, and it needs root.
# usage: slurm.sh start FOLDER    then  export SLURM_CONF=FOLDER/slurm.conf PATH=FOLDER/bin:$PATH
#        slurm.sh stop FOLDER
# Debian: apt-get install slurmctld slurmd slurm-client munge
set -euo pipefail
command=${1:?start or stop} folder=$(mkdir -p "${2:?a folder}" && realpath "$2")
host=$(hostname -s)

stop() {
  for name in slurmd slurmctld munged; do
    [ -f "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
  done
}

start() {
  for program in munged slurmctld slurmd; do
    command -v $program >/dev/null || { echo "no $program: apt-get install slurmctld slurmd slurm-client munge" >&2; exit 1; }
  done
  chmod 755 "$folder"; mkdir -p "$folder/state" "$folder/spool"
  head -c 1024 /dev/urandom > "$folder/munge.key"; chmod 600 "$folder/munge.key"
  cat > "$folder/slurm.conf" <<CONF
ClusterName=onenode
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
SlurmctldPort=46817
SlurmdPort=46818
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
MinJobAge=3600
SchedulerParameters=sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(free -m | awk '/^Mem/ {print int($2 * 0.9)}') State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
  # Snakemake clears the SLURM_ variables of a job before it starts srun, which then has to find this file again.
  mkdir -p "$folder/bin"
  printf '#!/bin/sh\nSLURM_CONF=%q exec %q "$@"\n' "$folder/slurm.conf" "$(command -v srun)" > "$folder/bin/srun"
  chmod 755 "$folder/bin/srun"
  munged --force --key-file "$folder/munge.key" --socket "$folder/munge.socket" --pid-file "$folder/munged.pid" \
         --log-file "$folder/munged.log" --seed-file "$folder/munge.seed"
  export SLURM_CONF=$folder/slurm.conf
  slurmctld -f "$SLURM_CONF" -c
  slurmd -f "$SLURM_CONF" -c
  for _ in $(seq 60); do
    [ "$(sinfo -h -o %T 2>/dev/null)" = idle ] && { echo "$SLURM_CONF"; return; }
    sleep 0.5
  done
  tail -n 5 "$folder"/*.log >&2; stop; exit 1
}

case $command in start|stop) $command ;; *) echo "usage: slurm.sh start|stop FOLDER" >&2; exit 2 ;; esac
