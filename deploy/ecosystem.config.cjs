// pm2 start deploy/ecosystem.config.cjs     (pm2 passes the environment on; settings come from there or from .env)
module.exports = {
  apps: [
    {
      name: "rqjobs-worker",
      script: "rqjobs",
      interpreter: "none", // a program, not a Node script
      args: "worker --health-port 8080 --grace 25",
      exec_mode: "fork",
      instances: 1, // more workers: --processes N
      kill_timeout: 40000, // longer than --grace: PM2's 1.6 s would kill running jobs; its SIGINT is as good as SIGTERM
      treekill: false, // the worker ends its own processes
      autorestart: true,
      exp_backoff_restart_delay: 200,
      max_memory_restart: "1G",
    },
    {
      name: "rqjobs-dashboard",
      script: "rqjobs",
      interpreter: "none",
      args: "dashboard --host 127.0.0.1 --port 9181",
      exec_mode: "fork",
      instances: 1,
      autorestart: true,
    },
  ],
};
