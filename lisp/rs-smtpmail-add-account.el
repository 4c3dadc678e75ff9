;;; rs-smtpmail-add-account.el --- Find and check the settings of an account  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Settings are proposed by what the domain says in the DNS (RFC 6186, RFC
;; 8314), by what is known of the provider, or else guessed.  The user changes
;; them, the engine checks them, and the user decides whether they are saved.

;;; Code:

(require 'dns)
(require 'puny)
(require 'rs-smtpmail)
(require 'rs-smtpmail-accounts)
(require 'rs-smtpmail-ask)
(require 'rs-smtpmail-providers)
(require 'rs-smtpmail-watch)
(eval-when-compile (require 'cl-lib))

(defvar rs-smtpmail--event-functions)

;;;; Internal variables

(defconst rs-smtpmail--stream-types
  '(("TLS at once" . ssl)
    ("STARTTLS" . starttls)
    ("STARTTLS if offered" . nil)
    ("no TLS" . plain))
  "Stream types by how they are called when the user is asked.")

(defconst rs-smtpmail--dns-seconds 3
  "How long the DNS may take to answer.")

(defvar rs-smtpmail--account-checks nil
  "Alist from the number of a check to a function to call when it has ended.
Its argument is what came of it: `good', `failed', or `untried' if the
server wants a password, and none was there to be tried.")

(defvar rs-smtpmail--untried-checks nil
  "Numbers of the checks under way that had no password to try.")

;;;; The DNS

(defun rs-smtpmail--dns-answers (queries)
  "Return the answers to QUERIES, each a list (NAME TYPE), in their order.
An answer is a list of data, as `dns-query' returns one of.  What could
not be asked, or has not come after `rs-smtpmail--dns-seconds', is the
symbol `unknown'."
  (let ((answers (make-vector (length queries) 'unanswered))
        (end (time-add nil rs-smtpmail--dns-seconds)))
    (cl-loop for (name type) in queries
             for index from 0
             do (rs-smtpmail--dns-ask name type answers index))
    (while (and (seq-contains-p answers 'unanswered #'eq)
                (time-less-p nil end))
      (accept-process-output nil 0.05))
    (mapcar (lambda (answer) (if (eq answer 'unanswered) 'unknown answer)) answers)))

(defun rs-smtpmail--dns-ask (name type answers index)
  "Have the data of TYPE for NAME put into the vector ANSWERS at INDEX."
  (unless (and (ignore-errors
                 ;; Without a network, it depends on the system where it fails.
                 (dns-query-asynchronous
                  name
                  (lambda (reply)
                    (aset answers index
                          (if reply (rs-smtpmail--dns-data reply type) 'unknown)))
                  type t)
                 t)
               dns-servers)
    (aset answers index 'unknown)))

(defun rs-smtpmail--dns-data (reply type)
  "Return the data of the records of TYPE that answer in REPLY."
  (cl-loop for record in (cadr (assq 'answers reply))
           when (eq type (cadr (assq 'type record)))
           collect (cadr (assq 'data record))))

(defun rs-smtpmail--srv-proposals (stream-type records)
  "Return proposals with STREAM-TYPE from RECORDS, data of SRV records."
  (cl-loop for record in records
           for target = (cadr (assq 'target record))
           ;; Empty: the domain says that it has no such service.
           unless (string-empty-p target)
           collect (list :server target
                         :port (cadr (assq 'port record))
                         :stream-type stream-type
                         :priority (cadr (assq 'priority record))
                         :weight (cadr (assq 'weight record))
                         :source "found in the DNS")))

(defun rs-smtpmail--srv-before-p (one other)
  "Whether the proposal ONE comes before OTHER (RFC 2782)."
  (let ((priority (plist-get one :priority))
        (other-priority (plist-get other :priority)))
    (or (< priority other-priority)
        (and (= priority other-priority)
             (> (plist-get one :weight) (plist-get other :weight))))))

;;;; Proposals

(defun rs-smtpmail--provider (key name)
  "Return the provider one of whose KEY, domains, is NAME or has it inside."
  (seq-find (lambda (provider)
              (seq-some (lambda (domain)
                          (or (string= domain name)
                              (string-suffix-p (concat "." domain) name)))
                        (plist-get provider key)))
            rs-smtpmail-providers))

(defun rs-smtpmail--proposals (domain)
  "Return proposals for a server for mail from DOMAIN, the best first.
Each has, beside some of the settings of an account, a `:source' and
perhaps a `:hint'."
  (let ((domain (downcase (puny-encode-domain domain))))
    (pcase-let*
        ((answers
          (rs-smtpmail--dns-answers `((,(concat "_submissions._tcp." domain) SRV)
                                      (,(concat "_submission._tcp." domain) SRV)
                                      (,domain MX))))
         (source (if (memq 'unknown answers)
                     (lambda (text) (concat text "; the DNS did not answer"))
                   #'identity))
         (`(,submissions ,submission ,mx)
          (mapcar (lambda (answer) (unless (eq answer 'unknown) answer)) answers))
         (provider (or (rs-smtpmail--provider :domains domain)
                       (seq-some (lambda (record)
                                   (rs-smtpmail--provider :mx (downcase (cdr record))))
                                 mx)))
         (from-dns (sort (append (rs-smtpmail--srv-proposals 'ssl submissions)
                                 (rs-smtpmail--srv-proposals 'starttls submission))
                         #'rs-smtpmail--srv-before-p)))
      (append
       (mapcar (lambda (proposal)
                 (append proposal (list :hint (rs-smtpmail--srv-hint
                                               proposal domain provider))))
               from-dns)
       (and provider
            (list (append provider
                          (list :source (funcall source
                                                 (concat "that of "
                                                         (plist-get provider :name)))))))
       (mapcar (lambda (host)
                 (list :server (concat host "." domain) :port 465 :stream-type 'ssl
                       :source (funcall source "a guess")))
               '("smtp" "mail"))))))

(defun rs-smtpmail--srv-hint (proposal domain provider)
  "Return what to know about PROPOSAL, from an SRV record of DOMAIN, or nil.
PROVIDER is the domain's, if it is known."
  (let ((server (plist-get proposal :server)))
    (or (plist-get provider :hint)
        (unless (or (string= (downcase server) domain)
                    (string-suffix-p (concat "." domain) server t))
          (format "%s is not in %s, and DNS can be forged: make sure that it is right."
                  server domain)))))

;;;; Asking

(defun rs-smtpmail--read-account (address proposals)
  "Ask for the settings of the account for ADDRESS; PROPOSALS are defaults."
  (let* ((servers (mapcar (lambda (proposal) (plist-get proposal :server)) proposals))
         (source (plist-get (car proposals) :source))
         (server (completing-read
                  (format-prompt (format "SMTP server, %s" source)
                                 (car servers))
                  servers nil nil nil nil (car servers)))
         (proposal (or (seq-find (lambda (one) (equal server (plist-get one :server)))
                                 proposals)
                       (list :port 465 :stream-type 'ssl)))
         (port (read-number "Port: " (plist-get proposal :port)))
         (usual (if (eql port (plist-get proposal :port))
                    (plist-get proposal :stream-type)
                  (if (eql port 465) 'ssl 'starttls)))
         (name (car (rassq usual rs-smtpmail--stream-types)))
         (stream-type (cdr (assoc (completing-read (format-prompt "Encryption" name)
                                                   rs-smtpmail--stream-types
                                                   nil t nil nil name)
                                  rs-smtpmail--stream-types)))
         (default (or (plist-get proposal :user)
                      (and (not (string-prefix-p "*@" address)) address)))
         (user (read-string (format-prompt "User name" default)
                            nil nil default)))
    (list :server server :port port :stream-type stream-type
          :user (and user (not (string-empty-p user)) user))))

(defun rs-smtpmail--check-account (address account proposals)
  "Check ACCOUNT for ADDRESS, and then ask whether to use it.
PROPOSALS are the defaults for changing it."
  (let* ((buffer (rs-smtpmail-check-server
                  (rs-smtpmail--call-with-account account #'rs-smtpmail--server)))
         (hint (plist-get (seq-find (lambda (proposal)
                                      (equal (plist-get account :server)
                                             (plist-get proposal :server)))
                                    proposals)
                          :hint)))
    (when hint
      (with-current-buffer buffer
        (let ((inhibit-read-only t)
              (start (point-max)))
          (goto-char start)
          (insert hint)
          (fill-region start (point))
          (insert "\n\n"))))
    (add-hook 'rs-smtpmail--event-functions #'rs-smtpmail--account-check-event)
    (push (cons (car (rassq buffer rs-smtpmail--checks))
                (lambda (verdict)
                  (rs-smtpmail--when-user-is-there
                   #'rs-smtpmail--decide-account
                   (list address account proposals verdict))))
          rs-smtpmail--account-checks)))

(defun rs-smtpmail--account-check-event (event)
  "Go on with the account whose check has ended with EVENT."
  (when (eq (plist-get event :event) 'check)
    (let* ((number (plist-get event :request))
           (function (alist-get number rs-smtpmail--account-checks)))
      (cond
       ((null function))
       ((plist-get event :last)
        (let ((verdict (cond ((not (plist-get event :ok)) 'failed)
                             ((memq number rs-smtpmail--untried-checks) 'untried)
                             (t 'good))))
          (setf (alist-get number rs-smtpmail--account-checks nil t) nil)
          (setq rs-smtpmail--untried-checks (delq number rs-smtpmail--untried-checks))
          (funcall function verdict)))
       ((rs-smtpmail--no-password-p event)
        (push number rs-smtpmail--untried-checks))))))

(defun rs-smtpmail--no-password-p (event)
  "Whether EVENT, a step of a check, is that there was no password to try."
  (and (equal (plist-get event :step) "AUTH")
       (string-prefix-p "offered; no password" (plist-get event :text))))

(defun rs-smtpmail--decide-account (checked)
  "Ask what to do with an account.
CHECKED is a list of its address, its settings, the proposals that are
defaults for changing it, and what came of the check."
  (pcase-let ((`(,address ,account ,proposals ,verdict) checked))
    (pcase (car (rs-smtpmail--stoppably
                  (read-multiple-choice
                   (format (pcase verdict
                             ('good "%s can be used for %s")
                             ('untried "%s answers; no password was tried, \
the first mail from %s asks for it")
                             (_ "%s could not be used for %s, see above"))
                           (plist-get account :server) address)
                   '((?s "save" "Use the account in this and future sessions")
                     (?u "use" "Use the account in this session only")
                     (?c "change" "Change the settings, and check them again")
                     (?q "quit" "Forget the account")))))
      (?s (rs-smtpmail--use-account address account t))
      (?u (rs-smtpmail--use-account address account nil))
      (?c (rs-smtpmail--check-account
           address
           (rs-smtpmail--read-account
            address
            ;; What did not work is the last that is proposed.
            (let ((own (append account (list :source "as before"))))
              (if (eq verdict 'failed)
                  (append (seq-remove (lambda (proposal)
                                        (equal (plist-get proposal :server)
                                               (plist-get account :server)))
                                      proposals)
                          (list own))
                (cons own proposals))))
           proposals)))))

;;;; Using the account

(defun rs-smtpmail--use-account (address account save)
  "Use ACCOUNT for ADDRESS, and see to it that mail can be sent from there.
If SAVE is non-nil, then also in future sessions."
  (let ((options
         `((rs-smtpmail-accounts . ,(rs-smtpmail--accounts-with address account))
           ,@(and (rs-smtpmail--no-address-chosen-p)
                  (not (string-prefix-p "*@" address))
                  `((user-mail-address . ,address)))
           ,@(and (eq send-mail-function 'sendmail-query-once)
                  '((send-mail-function . rs-smtpmail-send-it))))))
    (pcase-dolist (`(,option . ,value) options)
      (customize-set-variable option value))
    (when save
      (pcase-dolist (`(,option . ,value) options)
        (customize-save-variable option value))))
  (message "Mail from %s goes to %s.%s" address (plist-get account :server)
           (if (or rs-smtpmail-mode
                   (eq send-mail-function #'rs-smtpmail-send-it)
                   (eq (bound-and-true-p message-send-mail-function)
                       #'rs-smtpmail-send-it))
               (substitute-command-keys "  \\[compose-mail] writes one.")
             "  Now turn `rs-smtpmail-mode' on.")))

(defun rs-smtpmail--accounts-with (address account)
  "Return `rs-smtpmail-accounts' with ACCOUNT for ADDRESS.
It takes the place of an earlier one."
  (let ((same (lambda (entry)
                (and (stringp (car entry))
                     (rs-smtpmail--same-address-p (car entry) address)))))
    (cond
     ((seq-some same rs-smtpmail-accounts)
      (mapcar (lambda (entry) (if (funcall same entry) (cons address account) entry))
              rs-smtpmail-accounts))
     ;; The first that fits decides: whole domains come last.
     ((string-prefix-p "*@" address)
      (append rs-smtpmail-accounts (list (cons address account))))
     (t (cons (cons address account) rs-smtpmail-accounts)))))

(defun rs-smtpmail--no-address-chosen-p ()
  "Whether `user-mail-address' is only what Emacs has made up."
  (and (not (getenv "EMAIL"))
       (not (get 'user-mail-address 'saved-value))
       (not (get 'user-mail-address 'customized-value))
       (member user-mail-address
               (list nil "" (eval (car (get 'user-mail-address 'standard-value)) t)))))

;;;; Command

;;;###autoload
(defun rs-smtpmail-add-account (address)
  "Add an account for ADDRESS to `rs-smtpmail-accounts'.
ADDRESS may be \"*@DOMAIN\", for all addresses there.  Settings are
proposed: what the domain has in the DNS, what is known of the provider,
or guesses.  They are checked as `rs-smtpmail-check-server' does, and
saved if you then agree.  With them, where you have chosen nothing else,
ADDRESS becomes `user-mail-address', and `send-mail-function' becomes
`rs-smtpmail-send-it'."
  (interactive (list (read-string "Mail address: "
                                  (unless (rs-smtpmail--no-address-chosen-p)
                                    user-mail-address))))
  (let* ((address (string-trim address))
         (domain (and (equal (ignore-error rs-smtp-address-error
                               (rs-smtp-parse-addresses address "Address"))
                             (list address))
                      (string-match "@\\([^@\"]+\\)\\'" address)
                      (match-string 1 address))))
    (unless domain
      (user-error "%S is not one mail address" address))
    (let ((proposals (progn
                       (message "Looking for the server of %s..." domain)
                       (rs-smtpmail--proposals domain))))
      (rs-smtpmail--check-account address
                                  (rs-smtpmail--read-account address proposals)
                                  proposals))))

(provide 'rs-smtpmail-add-account)

;;; rs-smtpmail-add-account.el ends here
